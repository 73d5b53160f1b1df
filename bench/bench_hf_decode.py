#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tokens per second that a transformers BitNet model decodes: trit.hf.swap_ beside transformers' own layers.

    TRIT_LIBRARY=build/lib/libtrit_torch_stable.so PYTHONPATH=python .venv/bin/python bench/bench_hf_decode.py
        [--device cpu|cuda] [--layers 30] [--tokens 32] [--rounds 5] [--json FILE]

The shape of BitNet b1.58 2B4T, random weights, bfloat16, one sequence, static cache, greedy. Three models with one embedding:
trit's layers, transformers' packed BitLinear (both from the same codes; their first logits are compared), and torch's
Linear. On a GPU each is compiled (fullgraph) and a step is one CUDA graph; on a CPU they run as they are, where
transformers compiles the parts of its layer by itself. The models take turns; the figure is the median of the rounds. With
fewer layers than 30 the embedding's product weighs more: "ms_per_layer" is taken from the model and one without layers.
"""
import argparse
import copy
import json
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from transformers.integrations import bitnet
from transformers.utils import logging

import trit

POSITIONS = 256


def skeleton(layers: int) -> torch.nn.Module:
    config = transformers.BitNetConfig(num_hidden_layers=layers)
    with torch.device("meta"):
        return transformers.BitNetForCausalLM(config).to(torch.bfloat16).eval().requires_grad_(False)


def filled(model: torch.nn.Module, device: str, shared: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Random tensors in the place of meta tensors; embedding and head are the same in all models."""
    model.to_empty(device=device)
    noise = torch.randn(1 << 24, device=device).bfloat16() * 0.02
    codes = torch.randint(0, 81, (1 << 24,), device=device)
    codes = sum((codes // 3**i % 3) << (2 * i) for i in range(4)).byte()
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or name in ("inv_freq", "original_inv_freq"):
                continue
            if tensor.dim() < 2:
                tensor.fill_(20.0 if name == "weight_scale" else 1.0)  # it divides
                continue
            source, flat = codes if tensor.dtype == torch.uint8 else noise, tensor.view(-1)
            for at in range(0, flat.numel(), source.numel()):
                flat[at:at + source.numel()] = source[:flat.numel() - at]
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(device)
    for name, module in (("embed", model.model.embed_tokens), ("head", model.lm_head)):
        module.weight.data = shared.setdefault(name, module.weight.data)
    return model


def models(layers: int, device: str) -> dict[str, torch.nn.Module]:
    shared: dict[str, torch.Tensor] = {}
    packed = skeleton(layers)
    if layers:
        bitnet.replace_with_bitnet_linear(packed, ["lm_head"], transformers.BitNetQuantConfig(linear_class="bitlinear"))
    packed = filled(packed, device, shared)
    tensors = [*packed.parameters(), *packed.buffers()]
    ours = copy.deepcopy(packed, {id(tensor): tensor for tensor in tensors})
    if layers:
        trit.hf.swap_(ours)
    return {"trit": ours, "transformers": packed, "linear": filled(skeleton(layers), device, shared)}


class Decoder:
    """A model with its cache, the last token and the position; step() makes the next token."""

    def __init__(self, model: torch.nn.Module, device: str, compiled: bool) -> None:
        self.model = model
        self.cache = transformers.StaticCache(config=model.config, max_cache_len=POSITIONS)
        self.token = torch.full((1, 1), 7, device=device)
        self.position = torch.zeros((1, 1), device=device, dtype=torch.long)
        self.logits = torch.empty(0)
        self.forward: Callable[..., torch.Tensor] = self._forward
        self.graph: torch.cuda.CUDAGraph | None = None
        if compiled:
            self._forward()  # the cache allocates at its first use
            self.forward = torch.compile(self._forward, fullgraph=True, dynamic=False)

    def _forward(self) -> torch.Tensor:
        return self.model(input_ids=self.token, position_ids=self.position, past_key_values=self.cache, use_cache=True).logits

    def _step(self) -> None:
        self.logits = self.forward()[:, -1]
        self.token.copy_(self.logits.argmax(-1, keepdim=True))
        self.position.add_(1)

    def capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()

    def restart(self) -> None:
        self.cache.reset()
        self.token.fill_(7)
        self.position.zero_()

    def step(self) -> None:
        if self.graph is None:
            self._step()
        else:
            self.graph.replay()


def seconds(decoder: Decoder, tokens: int, device: str) -> float:
    """Per token."""
    decoder.restart()
    for _ in range(2):
        decoder.step()
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(tokens):
        decoder.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / tokens


@torch.no_grad()
def measure(layers: int, device: str, tokens: int, rounds: int) -> tuple[dict[str, float], float]:
    """Milliseconds per token, and how far the first logits of trit are from transformers' (relative, RMS)."""
    decoders: dict[str, Decoder] = {}
    for name, model in models(layers, device).items():
        start = time.perf_counter()
        decoders[name] = Decoder(model, device, compiled=device == "cuda")
        if device == "cuda":
            decoders[name].capture()
        decoders[name].step()
        print(f"{layers} layers, {name}: ready after {time.perf_counter() - start:.1f} s", flush=True)
    first = {}
    for name, decoder in decoders.items():
        decoder.restart()
        decoder.step()
        first[name] = decoder.logits.float().clone()
    error = float((first["trit"] - first["transformers"]).norm() / first["transformers"].norm())
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decoder in decoders.items():
            count = tokens if device == "cuda" or name != "transformers" else max(2, tokens // 8)
            times[name].append(seconds(decoder, count, device) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch._dynamo.config.cache_size_limit = 64
    times, error = measure(args.layers, args.device, args.tokens, args.rounds)
    result = {"device": args.device, "layers": args.layers, "threads": torch.get_num_threads(), "torch": torch.__version__,
              "transformers": transformers.__version__, "ms_per_token": times, "logits_error": error}
    for name, milliseconds in times.items():
        print(f"{name:14} {milliseconds:9.3f} ms a token, {1e3 / milliseconds:8.1f} tokens/s, "
              f"trit is {milliseconds / times['trit']:.2f} x as fast")
    print(f"first logits, trit against transformers: {error:.2e} relative")
    if args.device == "cpu" and args.layers < 30:
        none, _ = measure(0, args.device, args.tokens, args.rounds)
        result["ms_per_layer"] = each = {name: (times[name] - none[name]) / args.layers for name in times}
        whole = {name: none[name] + 30 * each[name] for name in times}
        result["ms_per_token_of_30_layers"] = whole
        for name, milliseconds in whole.items():
            print(f"30 layers, from these: {name:14} {milliseconds:9.3f} ms, trit is {milliseconds / whole['trit']:.2f} x as fast")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
