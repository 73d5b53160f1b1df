#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One training step of one layer on a GPU: trit's operators beside float layers and torchao's training paths.

    bench_train_layer.py --library build/lib/libtrit_torch.so [--tokens 2048,16384] [--shapes 4096x4096,...] [--json FILE]

Each row is RMSNorm and one linear layer, forward and backward with gradients of x, the weight and the norm, in
bfloat16; the weight of trit and of torchao's quantised layers is float32 or as their recipe has it. All candidates of a
shape take turns in one process; each turn runs for --settle milliseconds before it is timed, so that clocks have
settled, and a figure is the median of the turns. Outputs and gradients of trit are checked against the plain formulas in
float32 in the same run. Peers that are not installed are left out, and said so.
"""
import argparse
import json
import statistics
import sys
import time
from typing import Callable

import torch

SHAPES = "2560x2560,4096x4096,14336x4096,4096x14336,8192x8192"  # out_features x in_features
EPS = 1e-6
BASELINE = "RMSNorm + Linear bf16, compiled"


class TritLayer(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, backward: str = "exact") -> None:
        super().__init__()
        self.backward_kind = backward
        self.weight = torch.nn.Parameter(torch.randn(outputs, inputs, device="cuda") / inputs**0.5)
        self.norm_weight = torch.nn.Parameter(torch.rand(inputs, device="cuda") + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.trit.bit_linear(x, self.weight, None, self.norm_weight, True, EPS, False, self.backward_kind)


class FloatLayer(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(inputs, eps=EPS, device="cuda", dtype=torch.bfloat16) if norm else torch.nn.Identity()
        self.linear = torch.nn.Linear(inputs, outputs, bias=False, device="cuda", dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x))


class FakeQuantised(torch.nn.Module):
    """BitNet b1.58 as papers write it: quantised and dequantised in floats, straight-through by detach()."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(inputs, eps=EPS, device="cuda", dtype=torch.bfloat16)
        self.weight = torch.nn.Parameter(torch.randn(outputs, inputs, device="cuda") / inputs**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        scale = 127 / x.abs().amax(-1, keepdim=True).clamp_min(1e-5)
        x = x + ((x * scale).round().clamp(-128, 127) / scale - x).detach()
        w = self.weight
        beta = w.abs().mean().clamp_min(1e-5)
        w = w + ((w / beta).round().clamp(-1, 1) * beta - w).detach()
        return torch.nn.functional.linear(x, w.to(x.dtype))


def compiled(module: torch.nn.Module) -> torch.nn.Module:
    return torch.compile(module, fullgraph=True, dynamic=False)


def torchao_layer(recipe: str) -> Callable[[int, int], torch.nn.Module]:
    def make(inputs: int, outputs: int) -> torch.nn.Module:
        layer = FloatLayer(inputs, outputs)
        if recipe == "fp8":
            from torchao.float8 import convert_to_float8_training
            convert_to_float8_training(layer)
        else:
            from torchao import quantize_
            from torchao.prototype import quantized_training
            quantize_(layer, getattr(quantized_training, recipe)())
        return compiled(layer)

    return make


CANDIDATES: dict[str, Callable[[int, int], torch.nn.Module]] = {
    "trit, exact backward": TritLayer,
    "trit, dX in int8": lambda inputs, outputs: TritLayer(inputs, outputs, "int8_input"),
    "trit, dX and dW in int8": lambda inputs, outputs: TritLayer(inputs, outputs, "int8_all"),
    BASELINE: lambda inputs, outputs: compiled(FloatLayer(inputs, outputs)),
    "Linear bf16 without a norm": lambda inputs, outputs: FloatLayer(inputs, outputs, norm=False),
    "fake-quantised BitLinear, compiled": lambda inputs, outputs: compiled(FakeQuantised(inputs, outputs)),
    "torchao bitnet_training, compiled": torchao_layer("bitnet_training"),
    "torchao int8_mixed_precision_training, compiled": torchao_layer("int8_mixed_precision_training"),
    "torchao float8 training, compiled": torchao_layer("fp8"),
}


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.float() - wanted).norm() / wanted.norm()).item()


def check(layer: TritLayer, x: torch.Tensor, dy: torch.Tensor) -> dict[str, float]:
    """Relative errors of trit's y, dX, dW and dg against the formulas in float32."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(dy)
    with torch.no_grad():
        g, w, xf, d = layer.norm_weight, layer.weight, x.float(), dy.float()
        r = (xf.square().mean(-1, keepdim=True) + EPS).rsqrt()
        xn = xf * r * g
        s = xn.abs().amax(-1, keepdim=True).clamp_min(1e-5) / 127
        q = (xn / s).round()
        beta = w.abs().mean().clamp_min(1e-5)
        t = (w / beta).round().clamp(-1, 1)
        dxn = d @ (t * beta)
        u = dxn * g
        wanted = {
            "y": (q @ t.t()) * s * beta,
            "dX": r * u - xf * r**3 * (u * xf).mean(-1, keepdim=True),
            "dW": d.t() @ (q * s),
            "dg": (dxn * xf * r).sum(0),
        }
    found = {"y": y, "dX": x.grad, "dW": layer.weight.grad, "dg": layer.norm_weight.grad}
    errors = {name: relative(found[name], wanted[name]) for name in wanted}
    # bfloat16 results have a unit of 2^-8; q may round the other way where two formulas differ in the last bit. A
    # gradient in int8 errs by about 0.3 units of max / 127, and the largest of 14,336 normal values is about 4.
    limits = dict.fromkeys(wanted, 2**-7)
    if layer.backward_kind != "exact":
        limits |= {"dX": 0.02, "dg": 0.02}
    if layer.backward_kind == "int8_all":
        limits["dW"] = 0.02
    if not all(errors[name] < limits[name] for name in wanted):
        sys.exit(f"trit differs from the formulas: {errors}, at most {limits}")
    for parameter in layer.parameters():
        parameter.grad = None
    return errors


class Turn:
    """A candidate with its tensors."""

    def __init__(self, layer: torch.nn.Module, x: torch.Tensor, dy: torch.Tensor) -> None:
        self.layer, self.x, self.dy = layer, x.detach().requires_grad_(), dy
        self.parameters = list(layer.parameters())

    def forward(self) -> torch.Tensor:
        return self.layer(self.x)

    def step(self) -> None:
        self.x.grad = None
        for parameter in self.parameters:
            parameter.grad = None
        self.forward().backward(self.dy)

    def held(self) -> int:
        """Bytes between forward and backward; x and y are not counted."""
        self.step()
        self.x.grad = None
        for parameter in self.parameters:
            parameter.grad = None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        y = self.forward()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated() - before - y.numel() * y.element_size()


def microseconds(run: Callable[[], object], settle: float) -> float:
    """Of one call, back to back with its like, after `settle` seconds of them."""
    begin = time.monotonic()
    calls = 0
    while time.monotonic() - begin < settle:
        run()
        calls += 1
        if calls % 4 == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    calls = max(3, min(calls, 50) // 2)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1000 / calls


def measure(outputs: int, inputs: int, tokens: int, rounds: int, settle: float, chosen: list[str]) -> list[dict]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    x = torch.randn(tokens, inputs, device="cuda", dtype=torch.bfloat16)
    dy = torch.randn(tokens, outputs, device="cuda", dtype=torch.bfloat16) / outputs**0.5
    turns: dict[str, Turn] = {}
    rows: dict[str, dict] = {}
    for name in chosen:
        try:
            layer = CANDIDATES[name](inputs, outputs)
            row = {"candidate": name, "out_features": outputs, "in_features": inputs, "tokens": tokens}
            if isinstance(layer, TritLayer):
                row["relative_errors"] = check(layer, x, dy)
            turns[name] = Turn(layer, x, dy)
            row["bytes_held"] = turns[name].held()
            rows[name] = row
        except Exception as error:  # a peer that this torch or GPU does not take
            if name.startswith("trit"):
                raise
            turns.pop(name, None)
            print(f"left out: {name}: {str(error).splitlines()[0][:150]}", file=sys.stderr, flush=True)
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "step": []} for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            times[name]["step"].append(microseconds(turn.step, settle))
            times[name]["forward"].append(microseconds(turn.forward, settle / 4))
    baseline = statistics.median(times[BASELINE]["step"]) if BASELINE in times else None
    for name, row in rows.items():
        row["step_us"] = statistics.median(times[name]["step"])
        row["forward_us"] = statistics.median(times[name]["forward"])
        if baseline is not None:
            row["step_ratio"] = row["step_us"] / baseline
        print(f"{outputs}x{inputs} {tokens:6d}  {name:48s} forward {row['forward_us']:8.0f}  step {row['step_us']:8.0f} us  "
              f"ratio {row.get('step_ratio', float('nan')):5.2f}  held {row['bytes_held'] / 2**20:7.1f} MiB", flush=True)
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="libtrit_torch.so of a build for a GPU")
    parser.add_argument("--tokens", default="2048,16384", help="rows of x, several with commas (default: %(default)s)")
    parser.add_argument("--shapes", default=SHAPES, help="out_features x in_features (default: %(default)s)")
    parser.add_argument("--only", default="", help="candidates whose name contains this; the baseline always runs")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each candidate (default: %(default)s)")
    parser.add_argument("--settle", type=int, default=120, help="milliseconds before each timing (default: %(default)s)")
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench_train_layer: torch sees no GPU here")
    torch.ops.load_library(args.library)
    chosen = [name for name in CANDIDATES if args.only in name or name == BASELINE]
    rows: list[dict] = []
    for shape in args.shapes.split(","):
        outputs, inputs = (int(size) for size in shape.split("x"))
        for tokens in (int(count) for count in args.tokens.split(",")):
            rows += measure(outputs, inputs, tokens, args.rounds, args.settle / 1000, chosen)
            if args.json:
                with open(args.json, "w") as file:
                    json.dump({"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
