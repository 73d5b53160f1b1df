# SPDX-License-Identifier: MIT
"""Builds the fuzz targets, writes their seeds and runs each: fuzz/run.py [--seconds S | --runs N] [TARGET ...].

Fails on the first crash, leak, sanitizer report or input that takes over a second; the input is kept in the folder
and named. The corpus that a run found is kept for the next one.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("safetensors", "gguf", "huggingface", "json", "round_trip")


def build(folder: Path, jobs: int) -> None:
    local = ROOT / ".venv" / "bin"
    tool = lambda name: str(local / name) if (local / name).exists() else name  # noqa: E731
    clang = next((found for name in ("clang++", "clang++-18", "clang++-14") if (found := shutil.which(name))), None)
    if clang is None:
        sys.exit("fuzz: no clang++: on Debian and Ubuntu, apt-get install clang")
    subprocess.run([tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
                    f"-DCMAKE_CXX_COMPILER={clang}", "-DTRIT_FUZZ=ON", "-DTRIT_TORCH=OFF", "-DTRIT_TESTS=OFF",
                    "-DTRIT_BENCH=OFF", "-DTRIT_ONEDNN=OFF"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([tool("cmake"), "--build", folder, f"-j{jobs}", "--target", "write_seeds",
                    *(f"fuzz_{target}" for target in TARGETS)], check=True)


def run(folder: Path, target: str, seeds: Path, limit: str) -> None:
    corpus = folder / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    artifacts = folder / "found" / target
    artifacts.mkdir(parents=True, exist_ok=True)
    print(f"fuzz_{target}:", end=" ", flush=True)
    done = subprocess.run([folder / "bin" / f"fuzz_{target}", limit, "-timeout=1", "-rss_limit_mb=1024", "-max_len=8192",
                           "-print_final_stats=1", f"-artifact_prefix={artifacts}/", corpus, seeds / target],
                          capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        print("FAILED")
        sys.exit(done.stderr[-8000:])
    value = lambda key: re.search(rf"stat::{key}:\s+(\d+)", done.stderr).group(1)  # noqa: E731
    print(f"{value('number_of_executed_units')} executions, {value('average_exec_per_sec')} a second, "
          f"peak {value('peak_rss_mb')} MB, corpus {len(os.listdir(corpus))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all if none is named")
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--runs", type=int, help="executions of each target, instead of a time")
    parser.add_argument("--build", type=Path, default=ROOT / "build-fuzz")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    build(arguments.build, arguments.jobs)
    seeds = arguments.build / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    subprocess.run([arguments.build / "bin" / "write_seeds", seeds], check=True)
    limit = f"-runs={arguments.runs}" if arguments.runs else f"-max_total_time={arguments.seconds}"
    for target in arguments.targets or TARGETS:
        run(arguments.build, target, seeds, limit)


if __name__ == "__main__":
    main()
