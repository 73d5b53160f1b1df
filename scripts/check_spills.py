#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails when an inner loop of a product kernel keeps vectors on the stack.

    check_spills.py OBJECT...        object files of the library; those of src/cpu/*/product*.cpp are looked at

A product kernel lives in registers alone: gcc 12 has spilled accumulators of such loops at a third of their speed
without a word. This disassembles each object (objdump), takes the innermost loops that hold the kernel's dot
product instruction, and looks for vector loads and stores relative to the stack. An object in which no such loop
is found is a failure too: then this script looks for the wrong thing.
"""
import re
import subprocess
import sys

# Folder of src/cpu -> the instruction that its inner loops are made of.
KERNELS = {"avx2": "vpmaddubsw", "avx_vnni": "vpdpbusd", "avx512_vnni": "vpdpbusd", "amx": "tdpbssd"}


def functions(path: str) -> dict[str, list[tuple[int, str, str]]]:
    """name -> [(address, mnemonic, operands)]"""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[tuple[int, str, str]]] = {}
    current: list[tuple[int, str, str]] = []
    for line in text.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            current = found.setdefault(header[1], [])
        elif instruction := re.match(r"\s*([0-9a-f]+):\s+(?:\{vex\} )?(\S+)\s*(.*)", line):
            current.append((int(instruction[1], 16), instruction[2], instruction[3]))
    return found


def innermost_loops(code: list[tuple[int, str, str]]) -> list[list[tuple[int, str, str]]]:
    """Bodies of backward jumps that hold no smaller one."""
    index = {address: i for i, (address, _, _) in enumerate(code)}
    ranges = set()
    for i, (address, mnemonic, operands) in enumerate(code):
        target = re.match(r"([0-9a-f]+)\b", operands) if mnemonic.startswith("j") else None
        if target and int(target[1], 16) <= address and int(target[1], 16) in index:
            ranges.add((index[int(target[1], 16)], i))
    inner = [r for r in ranges if not any(r != s and r[0] <= s[0] and s[1] <= r[1] for s in ranges)]
    return [code[first : last + 1] for first, last in sorted(inner)]


def check(path: str, dot: str) -> bool:
    loops = 0
    clean = True
    for name, code in functions(path).items():
        # %rbp is the frame only where the function says so, else it is a register like any other.
        framed = any(m == "mov" and o == "%rsp,%rbp" for _, m, o in code)
        stack = re.compile(r"\(%r(sp|bp)" if framed else r"\(%rsp")
        for body in innermost_loops(code):
            dots = sum(m == dot for _, m, _ in body)
            if dots == 0:
                continue
            loops += 1
            spills = [(a, m, o) for a, m, o in body if stack.search(o) and re.search(r"%[xyz]mm", o)]
            print(f"check_spills: {path}: loop of {len(body)} instructions, {dots} {dot}, {len(spills)} on the stack")
            for address, mnemonic, operands in spills:
                print(f"check_spills: {name} {address:#x}: {mnemonic} {operands}", file=sys.stderr)
            clean = clean and not spills
    if loops == 0:
        print(f"check_spills: {path}: no loop with {dot} found", file=sys.stderr)
    return clean and loops > 0


def main() -> int:
    chosen = []
    for path in sys.argv[1:]:
        part = re.search(r"src/cpu/(\w+)/product\w*\.cpp\.o", path)
        if part and part[1] in KERNELS:
            chosen.append((path, KERNELS[part[1]]))
    if not chosen:
        print("check_spills: none of the objects given is a product kernel", file=sys.stderr)
        return 1
    return 0 if all([check(path, dot) for path, dot in chosen]) else 1


if __name__ == "__main__":
    sys.exit(main())
