#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the benchmarks of the kernels and draws their results.

    run.py [--build build] [--results bench/results] [--only linear,peers,rows] [--no-plot]
           [ARGS for every program, such as --rounds 21]

Each program prints a table and adds its object to RESULTS/<machine>.json. plot.py then draws every file of that folder to
docs/images/. tables.py, called by hand, writes docs/results/<machine>.md. bench_linear and bench_peers run once per layer
shape, so that one run lasts a minute or two. bench_peers is built only where oneDNN is found.
Not included, because they need something from you: bench_eval.py (a trained model), bench_train.py (the data set),
external_peers.py (other libraries). Measure on an otherwise idle machine.
"""
import argparse
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LARGE = ("2560x2560", "6912x2560", "2560x6912", "4096x4096", "14336x4096", "4096x14336")
SMALL = ("512x4096,10x512",)


def runs() -> list[tuple[str, list[str]]]:
    """Program and its own arguments."""
    linear = [("linear", ["--merge", "--shapes", shapes]) for shapes in LARGE + SMALL]
    peers = [("peers", ["--merge", "--shapes", shape]) for shape in LARGE]
    return linear + peers + [("rows", [])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench" / "results")
    parser.add_argument("--only", default="linear,peers,rows", help="programs")
    parser.add_argument("--no-plot", action="store_true", help="leave docs/images as it is")
    args, passed_on = parser.parse_known_args()
    args.results.mkdir(parents=True, exist_ok=True)
    for name, arguments in runs():
        if name not in args.only.split(","):
            continue
        program = args.build / "bin" / f"bench_{name}"
        if not program.exists():
            print(f"bench: {program} does not exist; build with TRIT_BENCH=ON" + (", and oneDNN" if name == "peers" else ""),
                  file=sys.stderr)
            if name == "peers":
                continue
            return 1
        print(f"bench: bench_{name} {' '.join(arguments)}", flush=True)
        code = subprocess.run([program, "--json", args.results, *arguments, *passed_on]).returncode
        if code != 0:
            return 1
    if args.no_plot:
        return 0
    return subprocess.run([sys.executable, ROOT / "bench" / "plot.py", "--results", args.results]).returncode


if __name__ == "__main__":
    sys.exit(main())
