# SPDX-License-Identifier: MIT
"""Writes a model of PyTorch as a safetensors file that run_packed packs and runs without torch.

    python pack_pytorch.py MODEL.safetensors SAMPLES.safetensors

MODEL holds the state dict and, as text in its metadata, the graph: which layer reads what (docs/format.md).
SAMPLES holds an input `x` and what the model gives for it, `y`.
"""
import json
import sys

import torch
from safetensors.torch import save_file


class BitLinear(torch.nn.Linear):
    """BitNet b1.58's layer: RMSNorm, int8 activations with one scale a token, ternary weights with one scale.

    The detach() lets gradients pass the rounding, so this is what one trains.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.norm = torch.nn.RMSNorm(in_features, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127
        x = x + ((x / scale).round().clamp(-128, 127) * scale - x).detach()
        beta = self.weight.abs().mean().clamp(min=1e-5)
        weight = self.weight + ((self.weight / beta).round().clamp(-1, 1) * beta - self.weight).detach()
        return torch.nn.functional.linear(x, weight, self.bias)


torch.manual_seed(0)
model = torch.nn.Sequential(BitLinear(784, 256), torch.nn.ReLU(), BitLinear(256, 10))  # train it here
graph = {"input": {"shape": [784]},  # without the batch
         "nodes": [{"op": "input"},
                   {"op": "bit_linear", "name": "0", "inputs": [0], "norm": "rms", "eps": 1e-6},
                   {"op": "relu", "inputs": [1]},
                   {"op": "bit_linear", "name": "2", "inputs": [2], "norm": "rms", "eps": 1e-6}]}
save_file(model.state_dict(), sys.argv[1], {
    "trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply", "trit.model": json.dumps(graph)})
x = torch.randn(5, 784)
save_file({"x": x, "y": model(x).detach().contiguous()}, sys.argv[2])
