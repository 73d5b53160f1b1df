#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The Python package on a machine with a GPU: its tests, and what a call costs the host beside torch.nn.Linear.

    cmake --preset release -DTRIT_CUDA=ON && cmake --build build --target trit_torch_stable trit_torch bin/trit
    .venv/bin/python scripts/gpu_python.py [--build build] [--json FILE] [--no-tests]

Host time: calls are launched without waiting for the GPU, layers in turn, the median of 15 rounds.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run_tests(environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ROOT / "tests" / "python"]
    return subprocess.run(command, env=environment).returncode


def host_times(rounds: int = 15, calls: int = 200) -> dict[str, float]:
    """Microseconds of the host per call."""
    import torch
    import trit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    features, dtype = (4096, torch.bfloat16) if device == "cuda" else (64, torch.float32)
    x = torch.randn(1, features, device=device, dtype=dtype)
    linear = torch.nn.Linear(features, features, bias=False, device=device, dtype=dtype)
    norm = torch.nn.RMSNorm(features, device=device, dtype=dtype)
    layer = trit.nn.BitLinear(features, features, bias=False, device=device)
    frozen = trit.freeze(trit.nn.BitLinear(features, features, bias=False)).to(device)
    wanting = x.clone().requires_grad_()

    def inference(module):
        def call():
            with torch.no_grad():
                module(x)
        return call

    def training(module):
        def call():
            for parameter in module.parameters():
                parameter.grad = None
            module(wanting).backward(x)
        return call

    subjects = {"inference: Linear": inference(linear), "inference: RMSNorm + Linear": inference(torch.nn.Sequential(norm, linear)),
                "inference: PackedBitLinear": inference(frozen), "inference: BitLinear": inference(layer),
                "training: Linear": training(linear), "training: RMSNorm + Linear": training(torch.nn.Sequential(norm, linear)),
                "training: BitLinear": training(layer)}
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds + 2):
        for name, call in subjects.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / calls * 1e6)
    return {name: round(statistics.median(values[2:]), 2) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--no-tests", action="store_true")
    args = parser.parse_args()
    build = args.build.resolve()
    environment = {"TRIT_LIBRARY": str(build / "lib" / "libtrit_torch_stable.so"), "PYTHONPATH": str(ROOT / "python")}
    for variable, file in (("TRIT_TORCH_LIBRARY", "lib/libtrit_torch.so"), ("TRIT_COMMAND", "bin/trit")):
        if (build / file).exists():
            environment[variable] = str(build / file)
    code = 0 if args.no_tests else run_tests({**os.environ, **environment})
    os.environ.update(environment)
    sys.path.insert(0, str(ROOT / "python"))
    times = host_times()
    for name, microseconds in times.items():
        base = times[name.split(":")[0] + ": Linear"]
        print(f"{name:32} {microseconds:8.2f} us  {microseconds / base:.2f} x Linear")
    if args.json:
        args.json.write_text(json.dumps({"host_us": times}, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
