#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A training step of a transformer block's seven layers in Python, compiled: trit.nn.BitLinear beside bfloat16 Linear.

    TRIT_LIBRARY=build/lib/libtrit_torch_stable.so PYTHONPATH=python bench/cuda/bench_train_block.py
        [--tokens 16384] [--rounds 9] [--backward exact|int8_input|int8_all] [--profile] [--json FILE]

The shape of BitNet b1.58 2B4T: q, o 2560 x 2560, k, v 640 x 2560, gate, up 6912 x 2560, down 2560 x 6912. Attention is left
out: products of elements take its place, in both. Two arrangements of the norms: "inside", an RMSNorm in each layer as
BitLinear has it, and "outside", the four of BitNet's block, which the layers share. Forward, backward with all gradients,
x in bfloat16; trit's weights are float32. The blocks take turns of 40 steps, of which the last 20 count: an H200 works at
its power limit here, and its clock takes about ten steps to settle behind another block's. The figure is the median of
the rounds, by CUDA events.
"""
import argparse
import collections
import functools
import json
import pathlib
import statistics
from collections.abc import Callable

import torch

import trit

STEPS = 20  # that count, and before them as many that do not
HIDDEN, KEYS, INNER = 2560, 640, 6912
SHAPES = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, KEYS), "v": (HIDDEN, KEYS), "o": (HIDDEN, HIDDEN), "gate": (HIDDEN, INNER),
          "up": (HIDDEN, INNER), "down": (INNER, HIDDEN)}


class Block(torch.nn.Module):
    def __init__(self, ternary: bool, inside: bool, backward: trit.ops.Backward) -> None:
        super().__init__()

        def norm(features: int, wanted: bool) -> torch.nn.Module:
            return torch.nn.RMSNorm(features, eps=1e-6, dtype=torch.bfloat16) if wanted else torch.nn.Identity()

        for name, (inputs, outputs) in SHAPES.items():
            layer: torch.nn.Module
            if ternary:
                layer = trit.nn.BitLinear(inputs, outputs, bias=False, norm="rms" if inside else "none",
                                          backward=backward)
            else:
                layer = torch.nn.Sequential(norm(inputs, inside), torch.nn.Linear(inputs, outputs, bias=False, dtype=torch.bfloat16))
            setattr(self, name, layer)
        self.norms = torch.nn.ModuleList(norm(features, not inside) for features in (HIDDEN, HIDDEN, HIDDEN, INNER))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norms[0](x)
        mixed = self.q(h) + (self.k(h) * self.v(h)).repeat(1, HIDDEN // KEYS)
        x = x + self.o(self.norms[1](mixed))
        h = self.norms[2](x)
        return x + self.down(self.norms[3](torch.nn.functional.relu(self.gate(h)).square() * self.up(h)))


def step_once(block: torch.nn.Module, step: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, grad: torch.Tensor) -> None:
    x.grad = None
    for parameter in block.parameters():
        parameter.grad = None
    step(x).backward(grad)


def print_profile(name: str, run: Callable[[], None], steps: int = 10) -> None:
    """The kernels of a step, and how long the GPU has none: in all, and behind which kernels most of it."""
    for _ in range(2 * steps):
        run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            run()
        torch.cuda.synchronize()
    kernels = sorted(((event.time_range.start, event.time_range.end, event.name) for event in profiler.events() or []
                      if event.device_type == torch.autograd.DeviceType.CUDA))
    busy: collections.Counter[str] = collections.Counter()
    idle: collections.Counter[str] = collections.Counter()
    end, last = kernels[0][0], ""
    for start, stop, kernel in kernels:
        busy[kernel] += stop - start
        if start > end:
            idle[last] += start - end
        if stop > end:
            end, last = stop, kernel
    print(f"== {name}: {sum(busy.values()) / steps:.0f} us of kernels a step, idle {sum(idle.values()) / steps:.0f} us")
    for title, counter, rows in (("us", busy, 24), ("us idle behind", idle, 8)):
        for kernel, microseconds in counter.most_common(rows):
            print(f"{microseconds / steps:9.1f} {title} {kernel[:120]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backward", choices=["exact", "int8_input", "int8_all"], default="exact", help="of trit's layers")
    parser.add_argument("--profile", action="store_true", help="print where each block spends its time, measure nothing")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    x = torch.randn(args.tokens, HIDDEN, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    grad = torch.randn_like(x)
    blocks = {}
    for inside in (True, False):
        for ternary in (True, False):
            block = Block(ternary, inside, args.backward).cuda()
            step = torch.compile(block, fullgraph=True, dynamic=False)
            if ternary:  # inductor's code gives what the layers give
                with torch.no_grad():
                    few = x[:256].detach()
                    error = float((step(few).float() - block(few).float()).norm() / block(few).float().norm())
                assert error < 2e-2, error
            blocks["trit" if ternary else "bf16", "inside" if inside else "outside"] = block, step
    if args.profile:
        for (kind, norms), (block, step) in blocks.items():
            print_profile(f"{kind}, norms {norms}", functools.partial(step_once, block, step, x, grad))
        return
    times: dict[tuple[str, str], list[float]] = {key: [] for key in blocks}
    for turn in range(args.rounds + 1):
        for key, (block, step) in blocks.items():
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            for i in range(2 * STEPS):
                if i == STEPS:
                    events[0].record()
                step_once(block, step, x, grad)
            events[1].record()
            torch.cuda.synchronize()
            if turn >= 1:
                times[key].append(events[0].elapsed_time(events[1]) / STEPS)
    medians = {key: statistics.median(values) for key, values in times.items()}
    result = {}
    for norms in ("inside", "outside"):
        ours, theirs = medians["trit", norms], medians["bf16", norms]
        result[norms] = {"trit_ms": ours, "bf16_ms": theirs, "ratio": ours / theirs}
        print(f"norms {norms:8} trit {ours:8.3f} ms, bf16 Linear {theirs:8.3f} ms: {ours / theirs:.3f}")
    if args.json:
        args.json.write_text(json.dumps({"tokens": args.tokens, "backward": args.backward, "gpu": torch.cuda.get_device_name(),
                                         "torch": torch.__version__, "block": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
