#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the benchmarks of the kernels and draws their results.

    run.py [--build build] [--results bench/results] [--no-plot] [ARGS for every program, such as --rounds 21]

Each program prints a table and adds its object to RESULTS/<machine>.json; plot.py then draws every file in that
folder to docs/images/. Figures mean something only on an otherwise idle machine.
"""
import argparse
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ("bench_linear", "bench_rows")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench" / "results")
    parser.add_argument("--no-plot", action="store_true", help="leave docs/images as it is")
    args, passed_on = parser.parse_known_args()
    args.results.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        program = args.build / "bin" / name
        if not program.exists():
            print(f"bench: {program} does not exist; build with TRIT_BENCH=ON", file=sys.stderr)
            return 1
        print(f"bench: {name}", flush=True)
        code = subprocess.run([program, "--json", args.results, *passed_on]).returncode
        if code != 0:
            return 1
    if args.no_plot:
        return 0
    return subprocess.run([sys.executable, ROOT / "bench" / "plot.py", "--results", args.results]).returncode


if __name__ == "__main__":
    sys.exit(main())
