# SPDX-License-Identifier: MIT
"""Weak scaling on the GPUs of one host: bench_distributed with 1, 2, ... processes, each with the same number of tokens.

    bench_distributed.py build/bin/bench_distributed [--processes 1,2] [--rounds 2] [--json FILE] [-- OPTIONS OF THE PROGRAM]

A round runs every mode and number of processes once; the figure is the median over rounds. `share_of_linear` is the time of a step
of one process without communication, divided by the time with several.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys


def run(program: pathlib.Path, mode: str, processes: int, options: list[str]) -> dict[str, object]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "--no-python"]
    command = [*launcher, str(program), "--mode", mode, *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout
    result: dict[str, object] = json.loads([line for line in output.splitlines() if line.startswith("{")][-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    counts = [int(count) for count in args.processes.split(",")]
    modes = [mode + sums for sums in ("", "_bfloat16") for mode in ("ddp", "zero", "zero_backward")]
    cases = [("plain", 1), *((mode, count) for count in counts if count > 1 for mode in modes)]
    found: dict[tuple[str, int], list[dict[str, object]]] = {case: [] for case in cases}
    for _ in range(args.rounds):
        for case in cases:
            found[case].append(run(args.program.resolve(), *case, args.options))
    times = {case: statistics.median(float(str(result["step_ms"])) for result in results) for case, results in found.items()}
    lines = [found[case][-1] | {"step_ms": times[case], "share_of_linear": round(times["plain", 1] / times[case], 4)} for case in cases]
    for line in lines:
        print(json.dumps(line))
    if args.json:
        args.json.write_text(json.dumps({"weak_scaling": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
