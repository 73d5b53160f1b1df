#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails when an inner loop of a product kernel reads vectors back from the stack.

    check_spills.py OBJECT...                 object files of the library: those of src/cpu/*/product*.cpp are looked at
    check_spills.py --compiler clang++ [--commands build/compile_commands.json]
                                              compiles those sources with this compiler first

A product kernel keeps its accumulators in registers. gcc 12 has silently spilled them, which made such loops three
times slower. This script disassembles each object (objdump), takes the innermost loops that contain the kernel's dot
product instruction, and looks for vector loads relative to the stack. Stores alone are allowed: AMX kernels unpack
weights to scratch memory on the stack, which tile loads read. An object without such a loop is a failure too: then
this script looks for the wrong instruction.
"""
import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Folder of src/cpu -> the dot product instruction of its inner loops.
KERNELS = {
    "avx2": r"vpmaddubsw",
    "avx_vnni": r"(\{vex\} )?vpdpbusd",
    "avx512_vnni": r"vpdpbusd|vpermw",
    "amx": r"tdpb(ss|su|us|uu)d|vpdpbusd",
}
Instruction = tuple[int, str, str]  # address, mnemonic, operands


def functions(path: str) -> dict[str, list[Instruction]]:
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            current = found.setdefault(header[1], [])
        elif instruction := re.match(r"\s*([0-9a-f]+):\s+((?:\{vex\} )?\S+)\s*(.*)", line):
            current.append((int(instruction[1], 16), instruction[2], instruction[3]))
    return found


def innermost_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """Bodies of backward jumps that contain no smaller loop."""
    index = {address: i for i, (address, _, _) in enumerate(code)}
    ranges = set()
    for i, (address, mnemonic, operands) in enumerate(code):
        target = re.match(r"([0-9a-f]+)\b", operands) if mnemonic.startswith("j") else None
        if target and int(target[1], 16) <= address and int(target[1], 16) in index:
            ranges.add((index[int(target[1], 16)], i))
    inner = [r for r in ranges if not any(r != s and r[0] <= s[0] and s[1] <= r[1] for s in ranges)]
    return [code[first : last + 1] for first, last in sorted(inner)]


def reads_stack(operands: str, stack: str) -> bool:
    """Whether a vector instruction reads the stack. AT&T syntax: the destination comes last."""
    return bool(re.search(r"%[xyz]mm", operands) and re.search(stack + r"[^)]*\)(\{[^}]*\})*,", operands))


def check(path: str, dot: str) -> bool:
    loops = 0
    clean = True
    for name, code in functions(path).items():
        # %rbp is the frame pointer only in functions that set it; elsewhere it is a general register.
        framed = any(m == "mov" and o == "%rsp,%rbp" for _, m, o in code)
        stack = r"\(%r(?:sp|bp)" if framed else r"\(%rsp"
        for body in innermost_loops(code):
            dots = sum(bool(re.fullmatch(dot, m)) for _, m, _ in body)
            if dots == 0:
                continue
            loops += 1
            spills = [(a, m, o) for a, m, o in body if reads_stack(o, stack)]
            print(f"check_spills: {path}: loop of {len(body)} instructions, {dots} {dot}, {len(spills)} read from the stack")
            for address, mnemonic, operands in spills:
                print(f"check_spills: {name} {address:#x}: {mnemonic} {operands}", file=sys.stderr)
            clean = clean and not spills
    if loops == 0:
        print(f"check_spills: {path}: no loop with {dot} found", file=sys.stderr)
    return clean and loops > 0


def compile_with(compiler: str, commands: pathlib.Path, folder: str) -> list[str]:
    """Objects of all product kernels, compiled by the build's commands with another compiler and without warnings."""
    objects = []
    for entry in json.loads(commands.read_text()):
        if not re.search(r"src/cpu/\w+/product\w*\.cpp$", entry["file"]):
            continue
        words = shlex.split(entry["command"])
        output = pathlib.Path(folder) / re.search(r"src/cpu/.*", words[words.index("-o") + 1])[0]
        output.parent.mkdir(parents=True, exist_ok=True)
        words[0], words[words.index("-o") + 1] = compiler, str(output)
        subprocess.run([w for w in words if not w.startswith("-W")] + ["-w"], cwd=entry["directory"], check=True)
        objects.append(str(output))
    return objects


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="*")
    parser.add_argument("--compiler")
    parser.add_argument("--commands", type=pathlib.Path, default=ROOT / "build" / "compile_commands.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        objects = args.objects + (compile_with(args.compiler, args.commands, folder) if args.compiler else [])
        chosen = []
        for path in objects:
            part = re.search(r"src/cpu/(\w+)/product\w*\.cpp\.o", path)
            if part and part[1] in KERNELS:
                chosen.append((path, KERNELS[part[1]]))
        if not chosen:
            print("check_spills: none of the objects given is a product kernel", file=sys.stderr)
            return 1
        return 0 if all([check(path, dot) for path, dot in chosen]) else 1


if __name__ == "__main__":
    sys.exit(main())
