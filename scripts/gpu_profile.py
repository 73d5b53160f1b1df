#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Counters of each GPU kernel, by Nsight Compute: one launch of each from bench_cuda, caches flushed before it.

    gpu_profile.py [--build-dir build-cuda-torch] [--json FILE]

A share is of what the unit can do at the clock of that launch: memory (device memory's bytes), cache (second level), SM (the
busiest of its pipes, the tensor cores among them), issue (instructions started per scheduler and cycle). Times are of one launch
with cold caches and nothing before it, so they are longer than those of bench_cuda. Needs ncu (CUDA toolkit) and the right to
read counters (root, or the driver's NVreg_RestrictProfilingToAdminUsers=0).
"""
import argparse
import csv
import io
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Kernel, N x K, M: a product large enough to fill the device in each regime.
LAUNCHES = [("decode_one_ring_kernel", "28672x8192", 1), ("decode_one_direct_kernel", "4096x4096", 1),
            ("decode_kernel", "28672x8192", 8), ("decode_kernel", "8192x8192", 16),
            ("gemm_sm90_split_kernel", "8192x8192", 64), ("gemm_sm90_persistent_kernel", "8192x8192", 256),
            ("gemm_sm90_persistent_kernel", "8192x8192", 4096), ("gemm_sm80_kernel", "8192x8192", 4096),
            ("norm_quant_registers_kernel", "2560x2560", 1), ("ternarize_pack_kernel", "2560x2560", 1),
            ("abs_sum_kernel", "2560x2560", 1)]
SHARES = {"memory": "dram__throughput.avg.pct_of_peak_sustained_elapsed", "cache": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
          "sm": "sm__throughput.avg.pct_of_peak_sustained_elapsed", "issue": "smsp__issue_active.avg.pct_of_peak_sustained_active"}
DURATION = "gpu__time_duration.sum"


def profile(program: pathlib.Path, kernel: str, shape: str, tokens: int) -> dict | None:
    """Nothing where this GPU takes another kernel (the sm90 ones)."""
    command = ["ncu", "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--kernel-name", kernel, "--launch-count", "1",
               "--kill", "yes", "--metrics", ",".join([DURATION, *SHARES.values()]),
               program, "--shapes", shape, "--tokens", str(tokens), "--rounds", "1", "--settle", "0"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    table = "\n".join(line for line in done.stdout.splitlines() if line.startswith('"'))
    rows = list(csv.DictReader(io.StringIO(table)))
    if len(rows) < 2 and done.returncode == 0 and "==ERROR==" not in done.stdout:
        return None
    if len(rows) < 2:  # names, units, values
        sys.exit(f"gpu_profile: no launch of {kernel} was profiled:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    row = rows[-1]
    number = {name: float(row[name].replace(",", "")) for name in [DURATION, *SHARES.values()]}
    return {"kernel": kernel, "shape": shape, "tokens": tokens, "grid": row.get("Grid Size"), "block": row.get("Block Size"),
            "microseconds": number[DURATION] / 1000, **{share: round(number[name], 1) for share, name in SHARES.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=pathlib.Path, default=ROOT / "build-cuda-torch")
    parser.add_argument("--json", type=pathlib.Path, help='file to add the object "profile" to')
    args = parser.parse_args()
    os.environ["PATH"] += ":/usr/local/cuda/bin"
    results = []
    for launch in LAUNCHES:
        one = profile(args.build_dir / "bin" / "bench_cuda", *launch)
        if one is None:
            print(f"{launch[0]:28} {launch[1]:>10} M={launch[2]:<5} not taken by this GPU", flush=True)
            continue
        results.append(one)
        print(f"{one['kernel']:28} {one['shape']:>10} M={one['tokens']:<5} {one['microseconds']:8.1f} us  "
              + "  ".join(f"{share} {one[share]:.0f} %" for share in SHARES), flush=True)
    if args.json:
        data = json.loads(args.json.read_text()) if args.json.exists() else {}
        data["profile"] = results
        args.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
