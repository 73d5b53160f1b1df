#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What an eager call of a layer costs the host in Python, beside torch.nn.Linear in the same run.

    TRIT_LIBRARY=build/lib/libtrit_torch_stable.so PYTHONPATH=python .venv/bin/python bench/bench_python_overhead.py [--parts]
        [--device cpu|cuda] [--features N] [--rounds N] [--json FILE]

One token, N x N, no bias: on a GPU 4096 in bfloat16, calls launched without waiting for it; on a CPU 64 in float32 on one
thread, so that the arithmetic is small beside the call. The layers take turns of 50 calls, each call is timed by itself, and
the figure is the median of all calls. --parts times the pieces of a call as well.
"""
import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable

import torch

import trit

CALLS = 50


def subjects(device: str, features: int) -> dict[str, Callable[[], object]]:
    """Layers by "mode: name"; the first of a mode is what the others are divided by."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    x = torch.randn(1, features, device=device, dtype=dtype)
    linear = torch.nn.Linear(features, features, bias=False, device=device, dtype=dtype)
    norm = torch.nn.RMSNorm(features, device=device, dtype=dtype)
    layer = trit.nn.BitLinear(features, features, bias=False, device=device)
    plain = trit.nn.BitLinear(features, features, bias=False, norm="none", device=device)
    frozen = trit.freeze(trit.nn.BitLinear(features, features, bias=False)).to(device)
    wanting = x.clone().requires_grad_()

    def inference(module: torch.nn.Module) -> Callable[[], object]:
        return lambda: module(x)

    def training(module: torch.nn.Module) -> Callable[[], object]:
        parameters = list(module.parameters())

        def call() -> None:
            for parameter in parameters:
                parameter.grad = None
            module(wanting).backward(x)
        return call

    normed = torch.nn.Sequential(norm, linear)
    return {"inference: Linear": inference(linear), "inference: RMSNorm + Linear": inference(normed),
            "inference: PackedBitLinear": inference(frozen), "inference: BitLinear": inference(layer),
            "training: Linear": training(linear), "training: RMSNorm + Linear": training(normed),
            "training: BitLinear": training(layer), "training: BitLinear, no norm": training(plain)}


def parts(device: str, features: int) -> dict[str, Callable[[], object]]:
    """Pieces of a call: operators alone, a Function alone, an allocation."""
    x = torch.randn(1, features, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    layer = trit.nn.BitLinear(features, features, bias=False, device=device)
    frozen = trit.freeze(trit.nn.BitLinear(features, features, bias=False)).to(device)
    operators = torch.ops.trit_stable
    weight, g = layer.weight.detach(), layer.norm.weight.detach()
    saved = operators.bit_linear_train.default(x, weight, None, g, True, 1e-6, False)[1:]
    wanting, forward = x.clone().requires_grad_(), torch.no_grad()(layer)
    linear_grad = layer(wanting)

    def backward_alone() -> None:
        torch.autograd.grad(linear_grad, [wanting, layer.weight, layer.norm.weight], x, retain_graph=True)

    return {
        "part: empty": lambda: torch.empty((1, features), device=device),
        "part: nn.Identity": lambda module=torch.nn.Identity(): module(x),
        "part: F.linear": lambda: torch.nn.functional.linear(x, weight.to(x.dtype) if weight.dtype != x.dtype else weight),
        "part: bit_linear_prepared": lambda: operators.bit_linear_prepared.default(
            x, frozen.prepared, frozen.weight_scale, features, features, None, frozen.norm.weight, True, 1e-6),
        "part: bit_linear_train": lambda: operators.bit_linear_train.default(x, weight, None, g, True, 1e-6, False),
        "part: bit_linear_backward": lambda: operators.bit_linear_backward.default(
            x, x, g, *saved, features, torch.float32, True, True, True, True),
        "part: linear_backward_input": lambda: operators.linear_backward_input.default(x, saved[2], saved[3], features),
        "part: linear_backward_weight": lambda: operators.linear_backward_weight.default(
            x, saved[0], saved[1][0], features, torch.float32),
        "part: rms_norm_backward": lambda: operators.rms_norm_backward.default(x, x, saved[1][1], g, True, True),
        "part: forward without gradients": lambda: forward(x),
        "part: forward with gradients": lambda: layer(wanting),
        "part: backward": backward_alone,
    }


def measure(calls: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Microseconds of the host per call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            with torch.set_grad_enabled(not name.startswith("inference")):
                if device == "cuda":
                    torch.cuda.synchronize()
                for i in range(CALLS + 5):
                    start = time.perf_counter()
                    call()
                    taken = time.perf_counter() - start
                    if i >= 5:
                        times[name].append(taken * 1e6)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--features", type=int)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    features = args.features or (4096 if args.device == "cuda" else 64)
    if args.device == "cpu":
        torch.set_num_threads(1)
    times = measure(subjects(args.device, features), args.rounds, args.device)
    for name, microseconds in times.items():
        base = times[name.split(":")[0] + ": Linear"]
        print(f"{name:36} {microseconds:8.2f} us  {microseconds / base:.2f} x Linear")
    if args.parts:
        pieces = measure(parts(args.device, features), args.rounds, args.device)
        for name, microseconds in pieces.items():
            print(f"{name:36} {microseconds:8.2f} us")
        times |= pieces
    if args.json:
        args.json.write_text(json.dumps({"device": args.device, "features": features, "torch": torch.__version__,
                                         "host_us": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
