# SPDX-License-Identifier: MIT
"""Builds the fuzz targets, writes their seeds and runs each: fuzz/run.py [--seconds S | --runs N] [TARGET ...].

Fails on the first crash, leak, sanitizer report, input that takes over a second or allocation of 8 MB or more (inputs have
at most 4 KB: only a count that the reader trusts without checking needs as much). The input is saved in the folder and its name
is printed. The next run starts from the corpus of this one. An input that took too long is run again alone and counts if
it does so again: the machine may have been suspended.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# One for each reader, one for the JSON texts beside a model, and one for round trips between formats.
TARGETS = {"safetensors": "safetensors.dict", "trit": "safetensors.dict", "model": "safetensors.dict",
           "torchao": "safetensors.dict",
           "values": "safetensors.dict", "gguf": "gguf.dict", "blocks": None, "i2_s": None,
           "huggingface": "safetensors.dict", "json": "safetensors.dict", "round_trip": None}
TIMED_OUT = 70  # libFuzzer's exit code
# 8 MB, since libFuzzer's own list of a corpus counts too: 4 MB for 65,536 inputs.
LIMITS = ("-timeout=1", "-rss_limit_mb=1024", "-malloc_limit_mb=8", "-max_len=4096")
# 4 stack frames per allocation and a quarantine of 16 MB instead of 256: three times faster.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "malloc_context_size=4:quarantine_size_mb=16:detect_stack_use_after_return=0",
               "UBSAN_OPTIONS": "print_stacktrace=1"}


def find_clang() -> str | None:
    return next((found for name in ("clang++", "clang++-18", "clang++-14") if (found := shutil.which(name))), None)


def build(folder: Path, jobs: int) -> None:
    local = ROOT / ".venv" / "bin"
    tool = lambda name: str(local / name) if (local / name).exists() else name  # noqa: E731
    subprocess.run([tool("cmake"), "--preset", "fuzz", "-B", folder, f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
                    f"-DCMAKE_CXX_COMPILER={find_clang()}"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([tool("cmake"), "--build", folder, f"-j{jobs}", "--target", "write_seeds",
                    *(f"fuzz_{target}" for target in TARGETS)], check=True)


class Target:
    def __init__(self, folder: Path, name: str, seed: int, processes: int):
        self.name = name
        self.seed = seed
        self.processes = processes
        self.program = folder / "bin" / f"fuzz_{name}"
        self.seeds = folder / "seeds" / name
        self.corpus = folder / "corpus" / name
        self.artifacts = folder / "found" / name
        self.executions = 0
        self.seconds = 0.0
        self.peak_mb = 0
        for path in (self.corpus, self.artifacts):
            path.mkdir(parents=True, exist_ok=True)

    def is_hang(self, said: str) -> bool:
        """Whether the input of a timeout takes over a second of the processor's time when it is run again."""
        path = re.search(r"Test unit written to (\S+)", said).group(1)
        again = subprocess.run([self.program, "-timeout=20", path], capture_output=True, text=True, errors="replace",
                               env=ENVIRONMENT)
        took = re.search(r"Executed .* in (\d+) ms", again.stderr)
        if again.returncode != 0 or took is None or int(took.group(1)) > 1000:
            return True
        os.unlink(path)
        return False

    def run_process(self, limit: str, index: int) -> tuple[str, int]:
        """What one process of libFuzzer printed, and its exit code. Processes of a target exchange what they find in its corpus."""
        dictionary = TARGETS[self.name]
        seed = self.seed + 1000 * index if self.seed else 0  # run.py's seeds are small: those of two processes never meet
        command = [self.program, limit, *LIMITS, f"-seed={seed}", "-print_final_stats=1", f"-artifact_prefix={self.artifacts}/",
                   *([f"-dict={ROOT / 'fuzz' / dictionary}"] if dictionary else []), self.corpus, self.seeds]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=ENVIRONMENT)
        return done.stderr, done.returncode

    def run_once(self, limit: str) -> None:
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(self.processes) as pool:
            outcomes = list(pool.map(lambda index: self.run_process(limit, index), range(self.processes)))
        self.seconds += time.monotonic() - start
        for said, code in outcomes:
            if code != 0 and (code != TIMED_OUT or self.is_hang(said)):
                print(f"fuzz_{self.name}: FAILED")
                sys.exit(said[-8000:])
            stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", said))
            self.executions += int(stats["number_of_executed_units"])
            self.peak_mb = max(self.peak_mb, int(stats["peak_rss_mb"]))

    def run(self, runs: int | None, seconds: int) -> dict:
        while (self.executions < runs) if runs else (self.seconds < seconds):
            self.run_once(f"-runs={-(-(runs - self.executions) // self.processes)}" if runs else
                          f"-max_total_time={max(1, round(seconds - self.seconds))}")
        result = {"executions": self.executions, "processes": self.processes, "seconds": round(self.seconds, 1),
                  "executions_per_second": round(self.executions / self.seconds), "peak_mb": self.peak_mb,
                  "corpus": len(os.listdir(self.corpus))}
        print(f"fuzz_{self.name}: {result['executions']:,} executions, {result['executions_per_second']:,} a second, "
              f"peak {result['peak_mb']} MB, corpus {result['corpus']}", flush=True)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all if none is named")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--total-seconds", type=int, help="for all targets together")
    parser.add_argument("--runs", type=int, help="executions of each target, instead of a time")
    parser.add_argument("--build", type=Path, default=ROOT / "build-fuzz")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="for building, and targets at a time")
    parser.add_argument("--processes", type=int, default=1, help="for each target; they share its corpus")
    parser.add_argument("--skip-build", action="store_true", help="run the programs in --build as they are")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs; 0 takes another one each time")
    parser.add_argument("--if-clang", action="store_true", help="where there is no clang, say so and be content")
    parser.add_argument("--json", type=Path, help="file for the figures; those of other targets in it are kept")
    arguments = parser.parse_args()
    if not arguments.skip_build and find_clang() is None:
        text = "fuzz: no clang++, which has libFuzzer: on Debian and Ubuntu, apt-get install clang"
        if not arguments.if_clang:
            sys.exit(text)
        print(text + "; nothing was fuzzed")
        return
    if not arguments.skip_build:
        build(arguments.build, arguments.jobs)
    shutil.rmtree(arguments.build / "seeds", ignore_errors=True)
    subprocess.run([arguments.build / "bin" / "write_seeds", arguments.build / "seeds"], check=True)
    targets = arguments.targets or list(TARGETS)
    seconds = arguments.total_seconds // len(targets) if arguments.total_seconds else arguments.seconds
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda name: Target(arguments.build, name, arguments.seed, arguments.processes).run(arguments.runs, seconds),
                           targets)
        for name, result in zip(targets, results):
            if arguments.json:
                known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
                arguments.json.write_text(json.dumps({**known, name: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
