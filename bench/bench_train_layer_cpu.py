#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One training step of one layer on a CPU: trit's operators beside RMSNorm and torch.nn.Linear.

    bench_train_layer_cpu.py --library build/lib/libtrit_torch.so [--tokens 128,512,2048] [--shapes 512x4096,...]
                             [--threads 1,2] [--rounds 7] [--json FILE]

Each row is RMSNorm and one linear layer, forward and backward, with gradients of x, the weight and the norm. trit and the
first peer take float32; the second peer is torch's bfloat16 (weights, activations and gradients), where oneDNN has products
of it for this CPU; without AVX-512 they take over 100 times as long as those of float32. Candidates take turns in one process; figures are medians of the rounds, ratios medians of the
rounds' ratios. Each part of trit's step is timed by itself in the same rounds: where the time goes. trit's output and
gradients are checked against the formulas in float64 in the same run.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

import measuring
import torch

SHAPES = "512x4096,2560x2560,4096x4096"  # out_features x in_features
EPS = 1e-6


class TritLayer(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.norm_weight = torch.nn.Parameter(torch.rand(inputs) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.trit.bit_linear(x, self.weight, None, self.norm_weight, True, EPS, False)


def float_layer(inputs: int, outputs: int, dtype: torch.dtype) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.RMSNorm(inputs, eps=EPS), torch.nn.Linear(inputs, outputs, bias=False)).to(dtype)


class Turn:
    def __init__(self, layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor) -> None:
        self.layer, self.x, self.dy = layer, x.detach().clone().requires_grad_(), dy

    def step(self) -> tuple[float, float]:
        """Seconds of forward and of backward."""
        for tensor in (self.x, *self.layer.parameters()):
            tensor.grad = None
        start = time.perf_counter()
        y = self.layer(self.x)
        middle = time.perf_counter()
        y.backward(self.dy)
        return middle - start, time.perf_counter() - middle


def parts(layer: TritLayer, x: torch.Tensor, dy: torch.Tensor) -> dict[str, float]:
    """Seconds of each operator of a step of trit's layer."""
    seconds = {}

    def timed(name: str, function, *args):
        start = time.perf_counter()
        result = function(*args)
        seconds[name] = time.perf_counter() - start
        return result

    ops, inputs = torch.ops.trit, layer.weight.shape[1]
    with torch.no_grad():
        q, scale, rstd, q_sum = timed("norm and quantise", ops.norm_quant, x, layer.norm_weight, True, EPS)
        beta = timed("absmean", ops.absmean, layer.weight, False)
        codes = timed("ternarise and pack", ops.ternarize_pack, layer.weight, beta)
        timed("prepare and product", ops.packed_linear, q, scale, q_sum, codes, beta, inputs, None, torch.float32)
        dxn = timed("dX", ops.linear_backward_input, dy, codes, beta, inputs)
        timed("dW", ops.linear_backward_weight, dy, q, scale, inputs)
        timed("norm backward", ops.rms_norm_backward, dxn, x, rstd, layer.norm_weight, [True, True])
    return seconds


def check(layer: TritLayer, x: torch.Tensor, dy: torch.Tensor) -> None:
    turn = Turn(layer, x, dy)
    turn.step()
    with torch.no_grad():
        q, scale, rstd, _ = torch.ops.trit.norm_quant(x, layer.norm_weight, True, EPS)
        xq = q[:, :x.shape[1]].double() * scale.double()[:, None]
        beta = torch.ops.trit.absmean(layer.weight, False)
        codes = torch.ops.trit.ternarize_pack(layer.weight, beta)
        t = torch.ops.trit.dequantize(codes, beta, x.shape[1], torch.float32).double()
        d, xd, g, r = dy.double(), x.double(), layer.norm_weight.double(), rstd.double().reshape(-1, 1)
        u = (d @ t) * g
        wanted = {"dW": d.t() @ xq, "dX": r * u - xd * r**3 * (u * xd).mean(-1, keepdim=True)}
        found = {"dW": layer.weight.grad, "dX": turn.x.grad}
        for name, value in wanted.items():
            error = ((found[name].double() - value).norm() / value.norm()).item()
            if not error < 1e-5:
                sys.exit(f"bench_train_layer_cpu: {name} is {error:.1e} from the formula, wanted < 1e-5")


def measure(shape: tuple[int, int], tokens: int, threads: int, rounds: int) -> dict:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    outputs, inputs = shape
    x, dy = torch.randn(tokens, inputs), torch.randn(tokens, outputs)
    trit_layer = TritLayer(inputs, outputs)
    check(trit_layer, x, dy)
    turns = {"trit": Turn(trit_layer, x, dy), "fp32": Turn(float_layer(inputs, outputs, torch.float32), x, dy)}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        turns["bf16"] = Turn(float_layer(inputs, outputs, torch.bfloat16), x.bfloat16(), dy.bfloat16())
    for turn in turns.values():
        turn.step()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    part_times: list[dict[str, float]] = []
    for _ in range(rounds):
        for name, turn in turns.items():
            times[name].append(turn.step())
        part_times.append(parts(trit_layer, x, dy))

    def ratio(peer: str) -> float:
        return statistics.median(sum(a) / sum(b) for a, b in zip(times["trit"], times[peer]))

    row = {"out_features": outputs, "in_features": inputs, "tokens": tokens, "threads": threads,
           "milliseconds": {name: {"forward": 1e3 * statistics.median(t[0] for t in found),
                                   "backward": 1e3 * statistics.median(t[1] for t in found)} for name, found in times.items()},
           "parts_milliseconds": {name: 1e3 * statistics.median(p[name] for p in part_times) for name in part_times[0]},
           **{f"ratio_to_{peer}": ratio(peer) for peer in turns if peer != "trit"}}
    ms = {name: sum(found.values()) for name, found in row["milliseconds"].items()}
    print(f"{outputs}x{inputs}, {tokens} tokens, {threads} thread(s): trit {ms['trit']:.1f} ms, " +
          ", ".join(f"{row[f'ratio_to_{peer}']:.2f} of {peer} ({ms[peer]:.1f} ms)" for peer in turns if peer != "trit") + "; " +
          ", ".join(f"{name} {value:.1f}" for name, value in row["parts_milliseconds"].items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, required=True)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--tokens", default="128,512,2048")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=pathlib.Path, help='file to add the object "train_layer" to')
    args = parser.parse_args()
    torch.ops.load_library(str(args.library.resolve()))
    rows = [measure(tuple(int(size) for size in shape.split("x")), int(tokens), int(threads), args.rounds)
            for threads in args.threads.split(",") for shape in args.shapes.split(",") for tokens in args.tokens.split(",")]
    mean = measuring.geometric_mean(row["ratio_to_fp32"] for row in rows)
    print(f"geometric mean over fp32: {mean:.2f}")
    if args.json:
        measuring.store(args.json, "train_layer", {"torch": torch.__version__, "rows": rows, "mean_ratio_to_fp32": mean})


if __name__ == "__main__":
    main()
