#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""clang-format and clang-tidy over the project's C++ sources, with the versions of .venv.

    lint.py [--build FOLDER]... [--jobs N] [--format-only] [--tidy-only] [--all] [--no-cache] [FILE...]

FOLDER holds compile_commands.json (default: build, and build-cuda-torch where it is configured). Files that none of them
compiles are not given to clang-tidy; headers are checked through the sources that include them. Exit code 1 when a tool
finds something.

What targets precompile, LibTorch's headers, clang-tidy reads from a module that it builds once, in 20 s and 150 MB of the
build folder: a source then takes 8 s and not 25. clang-tidy leaves out the tests of the LibTorch half unless they are
named or --all is given; compiler warnings cover them.

A source in which nothing was found is not checked again until it, a header that it includes, its command line,
.clang-tidy or the version of clang-tidy changes. What it includes is known once it has been built. The results lie
in the user's cache folder, trit/lint.
"""
import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = pathlib.Path(sys.executable).parent  # .venv/bin
CACHE_SECONDS = 30 * 24 * 3600  # a result that nobody asked for in this time is removed


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


def precompiled_header(command: str) -> str:
    """The header in which CMake lists what a target precompiles, or nothing."""
    found = re.search(r"-include (\S+/cmake_pch\.hxx)", command)
    return found[1] if found else ""


def precompiled_as_module(build: pathlib.Path, entries: list[dict]) -> list[str]:
    """Arguments with which clang-tidy reads the precompiled headers of `entries` from a module. They come before all others,
    and do not look at the macros of these command lines, each set of which would make a module of its own."""
    commands = [entry["command"] for entry in entries if precompiled_header(entry["command"])]
    folder = build / "lint"
    folder.mkdir(exist_ok=True)
    headers = "".join(f'  header "{header}"\n' for header in sorted(set(map(precompiled_header, commands))))
    text = f"module precompiled [system] {{\n{headers}  export *\n}}\n"
    module_map = folder / "precompiled.modulemap"
    if not module_map.exists() or module_map.read_text() != text:
        module_map.write_text(text)
    others = {macro for command in commands for macro in re.findall(r" -D(\w+)", command)} - {"NDEBUG"}
    arguments = ["-fmodules", "-fmodules-validate-system-headers", f"-fmodule-map-file={module_map}", f"-fmodules-cache-path={folder / 'modules'}",
                 *(f"-fmodules-ignore-macro={macro}" for macro in sorted(others))]
    return [f"--extra-arg={argument}" for argument in arguments]


def cache_folder() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (pathlib.Path(cache) if os.path.isabs(cache) else pathlib.Path.home() / ".cache") / "trit" / "lint"


@functools.cache
def content_hash(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def included_files(build: pathlib.Path) -> dict[str, list[str]]:
    """Object -> the files that it was made from, as ninja knows them."""
    ninja = TOOLS / "ninja" if (TOOLS / "ninja").exists() else "ninja"
    text = subprocess.run([ninja, "-C", build, "-t", "deps"], capture_output=True, text=True).stdout
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("    "):
            current.append(str(build / line.strip()))
        elif line.endswith("(VALID)"):
            current = found.setdefault(str(build / line.split(": #deps")[0]), [])
        else:
            current = []
    return found


def key_of(entry: dict, includes: dict[str, list[str]], tools: str) -> str | None:
    """A hash of all that the result for a source depends on, the same in another checkout; None if that is not known."""
    files = includes.get(os.path.join(entry["directory"], entry["output"]))
    if files is None:
        return None
    digest = hashlib.sha256((tools + entry["command"].replace(str(ROOT), "")).encode())
    # gcc does not list what is in a precompiled header.
    if header := precompiled_header(entry["command"]):
        files = [*files, *includes.get(f"{header}.gch", [])]
    for path in sorted({entry["file"], *map(os.path.normpath, files)}):
        try:
            digest.update(f"{path.removeprefix(str(ROOT))} {content_hash(path)}\n".encode())
        except OSError:
            return None
    return digest.hexdigest()


def tidy(file: str, build: pathlib.Path, extra: list[str]) -> tuple[str, float, int, str]:
    start = time.monotonic()
    result = subprocess.run([TOOLS / "clang-tidy", "-p", build, "--quiet", *extra, ROOT / file], capture_output=True, text=True)
    return file, time.monotonic() - start, result.returncode, result.stdout + result.stderr


def check_tidy(files: list[str], builds: list[pathlib.Path], jobs: int, use_cache: bool) -> bool:
    folder_of: dict[str, pathlib.Path] = {}
    keys: dict[str, str | None] = {}
    version = subprocess.run([TOOLS / "clang-tidy", "--version"], capture_output=True, text=True, check=True).stdout
    extra = gcc_headers()
    tools = version + content_hash(str(ROOT / ".clang-tidy")) + " ".join(extra)
    modules: dict[str, list[str]] = {}
    for build in builds:
        includes = included_files(build) if use_cache else {}
        entries = json.loads((build / "compile_commands.json").read_text())
        as_module = precompiled_as_module(build, entries)
        for entry in entries:
            if folder_of.setdefault(entry["file"], build) is build:
                modules[entry["file"]] = as_module if precompiled_header(entry["command"]) else []
                arguments = " ".join(modules[entry["file"]]).replace(str(ROOT), "")
                keys[entry["file"]] = key_of(entry, includes, tools + arguments)
    sources = [file for file in files if str(ROOT / file) in folder_of]
    key = {file: keys[str(ROOT / file)] for file in sources}
    cache = cache_folder()
    known = {file for file in sources if key[file] and (cache / key[file]).exists()}
    for file in known:
        (cache / key[file]).touch()
    wanted = [file for file in sources if file not in known]

    def check(file: str) -> tuple[str, float, int, str]:
        path = str(ROOT / file)
        return tidy(file, folder_of[path], extra + modules[path])

    start, clean = time.monotonic(), True
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for file, seconds, code, output in pool.map(check, wanted):
            print(f"lint: clang-tidy {file} ({seconds:.0f} s){'' if code == 0 else ': found'}", flush=True)
            if code != 0:
                clean = False
                print(output, flush=True)
            elif key[file]:
                cache.mkdir(parents=True, exist_ok=True)
                (cache / key[file]).touch()
    if cache.exists():
        for old in cache.iterdir():
            if time.time() - old.stat().st_mtime > CACHE_SECONDS:
                old.unlink(missing_ok=True)
    print(f"lint: clang-tidy, {len(wanted)} sources in {time.monotonic() - start:.0f} s, {len(known)} known from before: "
          f"{'nothing found' if clean else 'see above'}", flush=True)
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
    parser.add_argument("--all", action="store_true", help="clang-tidy also over the tests of the LibTorch half")
    parser.add_argument("--no-cache", action="store_true", help="check every source again")
    parser.add_argument("files", nargs="*", help="relative to the checkout; default: all that git knows")
    args = parser.parse_args()

    listed = subprocess.run(["git", "ls-files", "*.cpp", "*.h", "*.cu", "*.cuh"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = args.files or listed
    clean = True
    if not args.tidy_only:
        clean = check_format(files)
    if not args.format_only:
        left_out = () if args.all or args.files else ("tests/torch/", "tests/apps/train/")
        sources = [file for file in files if file.endswith(".cpp") and not file.startswith(left_out)]
        clean = check_tidy(sources, configured(args.build), args.jobs, not args.no_cache) and clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
