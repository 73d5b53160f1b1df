#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""clang-format and clang-tidy over the project's C++ sources, with the versions of .venv.

    lint.py [--build FOLDER]... [--jobs N] [--format-only] [--tidy-only] [FILE...]

FOLDER holds compile_commands.json (default: build, and build-cuda-torch where it is configured: the GPU's half on the host);
files that none of them compiles are not given to clang-tidy, headers are checked through the sources that include them. Exit
code 1 when a tool finds something.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = pathlib.Path(sys.executable).parent  # .venv/bin


def check_format(files: list[str]) -> bool:
    result = subprocess.run([TOOLS / "clang-format", "--dry-run", "--Werror", *files], cwd=ROOT)
    print(f"lint: clang-format, {len(files)} files: {'as it should be' if result.returncode == 0 else 'run make format'}", flush=True)
    return result.returncode == 0


def gcc_headers() -> list[str]:
    """clang-tidy reads gcc's command lines: omp.h is found in gcc's own folder, after all others; std::stable_sort of
    gcc 12 calls a function that its own header calls deprecated; and gcc's
    precompiled headers are not clang's."""
    compiler = os.environ.get("CXX", "c++")
    folder = subprocess.run([compiler, "-print-file-name=include"], capture_output=True, text=True).stdout.strip()
    return [f"--extra-arg=-idirafter{folder}", "--extra-arg=-Wno-unknown-warning-option",
            "--extra-arg=-Wno-deprecated-declarations", "--extra-arg=-Wno-ignored-gch"]


def tidy(file: str, build: pathlib.Path, extra: list[str]) -> tuple[str, float, int, str]:
    start = time.monotonic()
    result = subprocess.run([TOOLS / "clang-tidy", "-p", build, "--quiet", *extra, ROOT / file], capture_output=True, text=True)
    return file, time.monotonic() - start, result.returncode, result.stdout + result.stderr


def check_tidy(files: list[str], builds: list[pathlib.Path], jobs: int) -> bool:
    folder_of: dict[str, pathlib.Path] = {}
    for build in builds:
        for entry in json.loads((build / "compile_commands.json").read_text()):
            folder_of.setdefault(entry["file"], build)
    sources = [file for file in files if str(ROOT / file) in folder_of]
    extra = gcc_headers()
    start, clean = time.monotonic(), True
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for file, seconds, code, output in pool.map(lambda file: tidy(file, folder_of[str(ROOT / file)], extra), sources):
            print(f"lint: clang-tidy {file} ({seconds:.0f} s){'' if code == 0 else ': found'}", flush=True)
            if code != 0:
                clean = False
                print(output, flush=True)
    print(f"lint: clang-tidy, {len(sources)} sources in {time.monotonic() - start:.0f} s: {'nothing found' if clean else 'see above'}", flush=True)
    return clean


def configured(folders: list[pathlib.Path] | None) -> list[pathlib.Path]:
    builds = [folder.resolve() for folder in folders or [ROOT / "build"]]
    for build in builds:
        if not (build / "compile_commands.json").exists():
            sys.exit(f"lint: {build}/compile_commands.json does not exist; configure first")
    gpu = ROOT / "build-cuda-torch"
    return builds if folders or not (gpu / "compile_commands.json").exists() else [*builds, gpu]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, action="append")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--format-only", action="store_true")
    parser.add_argument("--tidy-only", action="store_true")
    parser.add_argument("files", nargs="*", help="relative to the checkout; default: all that git knows")
    args = parser.parse_args()

    listed = subprocess.run(["git", "ls-files", "*.cpp", "*.h", "*.cu", "*.cuh"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = args.files or listed
    clean = True
    if not args.tidy_only:
        clean = check_format(files)
    if not args.format_only:
        clean = check_tidy([file for file in files if file.endswith(".cpp")], configured(args.build), args.jobs) and clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
