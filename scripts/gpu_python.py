#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The Python package on a machine with a GPU: its tests, and what a call costs the host beside torch.nn.Linear.

    cmake --preset release -DTRIT_CUDA=ON && cmake --build build --target trit_torch_stable trit_torch bin/trit
    .venv/bin/python scripts/gpu_python.py [--build build] [--json FILE] [--no-tests]

The host time is that of bench/bench_python_overhead.py.
"""
import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run_tests(environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ROOT / "tests" / "python"]
    return subprocess.run(command, env=environment).returncode


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
    environment = {**os.environ, **environment}
    code = 0 if args.no_tests else run_tests(environment)
    command = [sys.executable, ROOT / "bench" / "bench_python_overhead.py", *(["--json", args.json] if args.json else [])]
    return code or subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
