#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares two builds or two results of bench_linear.

    compare.py BUILD_A BUILD_B [--rounds 5] [ARGS for bench_linear, such as --shapes 4096x4096 --tokens 1,128]
    compare.py A.json B.json

Builds (folders with bin/bench_linear) run in turn, ROUNDS times each, so that a machine that changes its speed changes
both. Prints time of A / time of B for each case (above 1: B is faster), the median of the rounds' ratios, and their
geometric mean. The peak of the machine is compared as well; no build changes it, so its distance from 1 shows the noise
of this run. Exit code 1 if the geometric mean is further than --within from 1.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

import measuring

CASE = ("backend", "layout", "threads", "out_features", "in_features", "tokens", "weights_from")


def times(path: pathlib.Path) -> tuple[dict, dict]:
    linear = json.loads(path.read_text())["linear"]
    cases = {tuple(result.get(key) for key in CASE): result["microseconds"] for result in linear["results"]}
    peaks = {(limit["backend"], limit["threads"]): 1 / limit["int8_gops"] for limit in linear["limits"] if limit["int8_gops"]}
    return cases, peaks


def run(build: pathlib.Path, passed_on: list[str]) -> tuple[dict, dict]:
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "result.json"
        subprocess.run([build / "bin" / "bench_linear", "--json", output, *passed_on], check=True, stdout=subprocess.DEVNULL)
        return times(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=pathlib.Path)
    parser.add_argument("b", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--within", type=float, default=math.inf, help="0.03: fail beyond 3 %%")
    args, passed_on = parser.parse_known_args()
    if args.a.is_dir() != args.b.is_dir():
        parser.error("compare two builds or two files")
    rounds = []
    for number in range(args.rounds if args.a.is_dir() else 1):
        # A B, B A, A B, ...: neither is always the one that finds a warmer machine.
        first, second = (args.a, args.b) if number % 2 == 0 else (args.b, args.a)
        found = {path: run(path, passed_on) if path.is_dir() else times(path) for path in (first, second)}
        rounds.append((found[args.a], found[args.b]))
    ratios = {}
    for case in rounds[0][0][0]:
        if all(case in b[0] for _, b in rounds):
            ratios[case] = statistics.median(a[0][case] / b[0][case] for a, b in rounds)
    if not ratios:
        print("compare: no case in common", file=sys.stderr)
        return 1
    for case, ratio in ratios.items():
        backend, layout, threads, outputs, inputs, tokens, source = case
        print(f"{backend:<12} {layout or '':<8} T={threads:<3} {f'{outputs}x{inputs}':>11} M={tokens:<4} {source:<7} {ratio:6.3f}")
    for key in rounds[0][0][1]:
        print(f"{key[0]} peak, {key[1]} thread(s): {statistics.median(a[1][key] / b[1][key] for a, b in rounds):.3f}")
    mean = measuring.geometric_mean(ratios.values())
    print(f"geometric mean of {len(ratios)}: {mean:.3f} (minimum {min(ratios.values()):.3f}, maximum {max(ratios.values()):.3f})")
    return 0 if abs(mean - 1) <= args.within else 1


if __name__ == "__main__":
    sys.exit(main())
