#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the documents: CI runs it. Standard library alone.

    check_docs.py            every check below but the last
    check_docs.py --paths    also that the paths named between <!-- paths --> and <!-- end paths --> exist

* links to files of this repository, and their anchors, resolve;
* documents that sources name (docs/<name>.md) exist;
* a folder of src includes only those that CONTRIBUTING.md lets it include (lines `A <- B`);
* a design page has at most 150 lines, and a drawing before its second heading;
* every page of docs/ is reachable from README.md;
* prose is wrapped at 100 columns, generated pages included;
* tables and pictures are what bench/tables.py and bench/plot_speed.py make of bench/results.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DESIGN_LINES, PROSE_COLUMNS = 150, 100
SOURCES = (".h", ".cpp", ".cu", ".cuh", ".cmake", ".txt", ".py", ".sh", ".yml")
# Of src/torch, but without torch: src/torch_stable shares them.
SHARED_HEADERS = ("torch/gradient_int8.h", "torch/layer.h", "torch/new_pages.h", "torch/norm_rows.h",
                  "torch/row_kernels.h", "torch/transposed_weight.h", "torch/weight_tile.h", "torch/cuda/gradient_int8.h",
                  "torch/cuda/kernels.h", "torch/cuda/layer.h")
Errors = list[str]


def tracked(*patterns: str) -> list[pathlib.Path]:
    """Files of the repository; outside of git all that are there."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns], cwd=ROOT,
                            capture_output=True, text=True)
    if listed.returncode != 0:
        return sorted(path for pattern in patterns for path in ROOT.rglob(pattern))
    return sorted(path for name in set(listed.stdout.split("\0")) if name and (path := ROOT / name).is_file())


def prose(text: str) -> str:
    """The text with fenced code and drawings blanked; lines keep their numbers."""
    text = re.sub(r"^```.*?^```$", lambda found: "\n" * found[0].count("\n"), text, flags=re.M | re.S)
    return re.sub(r"^ {4}(?!\s*[*-] ).*$", "", text, flags=re.M)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, flags=re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {name if not count else f"{name}-{number}" for name, count in found.items() for number in range(count + 1)} | set(found)


def links(path: pathlib.Path) -> list[tuple[int, str]]:
    text = re.sub(r"`[^`\n]*`", "", prose(path.read_text()))
    return [(text.count("\n", 0, found.start()) + 1, found[1]) for found in re.finditer(r"\]\(([^)\s]+)\)", text)]


def check_links(documents: list[pathlib.Path]) -> tuple[Errors, dict[pathlib.Path, set[pathlib.Path]]]:
    errors, targets = [], {}
    for path in documents:
        targets[path] = set()
        for line, link in links(path):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            where = f"{path.relative_to(ROOT)}:{line}: {link}"
            if not target.exists():
                errors.append(f"{where}: no such file")
                continue
            targets[path].add(target)
            if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
                errors.append(f"{where}: no such heading; there are {', '.join(sorted(anchors(target.read_text())))}")
    return errors, targets


def check_reachable(documents: list[pathlib.Path], targets: dict[pathlib.Path, set[pathlib.Path]]) -> Errors:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += targets.get(path, set())
    return [f"{path.relative_to(ROOT)}: no document links to it" for path in documents
            if path not in seen and ROOT / "docs" in path.parents]


def check_sources() -> Errors:
    errors = []
    for path in tracked("*"):
        if path.name == "check_docs_test.py" or path.suffix not in SOURCES and path.name not in ("Makefile", "run"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            for name in re.findall(r"\bdocs/[\w./-]+\.md\b", line):
                if not (ROOT / name).exists():
                    errors.append(f"{path.relative_to(ROOT)}:{number}: {name} does not exist")
    return errors


def check_layers() -> Errors:
    path, errors, allowed = ROOT / "CONTRIBUTING.md", [], {}
    for line in re.findall(r"^ {4,}(\S.* <- .*)$", path.read_text() if path.exists() else "", flags=re.M):
        below: set[str] = set()  # what the names of the next group may include
        for group in line.split("<-"):
            names = [name.strip() for name in group.split(",")]
            for name in names:
                allowed.setdefault(name, {name}).update(below)
            below = set().union(*(allowed[name] for name in names))
    for source in tracked("*.h", "*.cpp", "*.cu", "*.cuh"):
        place = source.relative_to(ROOT)
        may = allowed.get(place.parts[1]) if place.parts[0] == "src" else None
        for include in re.findall(r'^#include "([\w/.]+)"', source.read_text(), flags=re.M) if may else ():
            if (folder := include.split("/")[0]) in allowed and folder not in may and include not in SHARED_HEADERS:
                errors.append(f"{place}: includes {include}; of src, {place.parts[1]} may include {', '.join(sorted(may))}")
    return errors


def check_design(documents: list[pathlib.Path]) -> Errors:
    errors = []
    for path in documents:
        if path.parent != ROOT / "docs" / "design":
            continue
        text = path.read_text()
        if (lines := text.count("\n")) > DESIGN_LINES:
            errors.append(f"{path.relative_to(ROOT)}: {lines} lines, {DESIGN_LINES} are allowed")
        if not re.search(r"^ {4}\S|^```|^!\[", text.split("\n## ")[0], flags=re.M):
            errors.append(f"{path.relative_to(ROOT)}: no drawing before the first section")
    return errors


def check_columns(documents: list[pathlib.Path]) -> Errors:
    errors = []
    for path in documents:
        for number, line in enumerate(prose(path.read_text()).splitlines(), 1):
            # A line that is one long link cannot be wrapped.
            if len(line) > PROSE_COLUMNS and " " in line[:PROSE_COLUMNS].lstrip(" *-") and not line.startswith(("|", "#", "!", "<")):
                errors.append(f"{path.relative_to(ROOT)}:{number}: {len(line)} columns, {PROSE_COLUMNS} are allowed")
    return errors


def check_paths(documents: list[pathlib.Path]) -> Errors:
    errors = []
    for path in documents:
        text = path.read_text()
        for block in re.finditer(r"^<!-- paths.*?<!-- end paths -->", text, flags=re.M | re.S):
            for name in re.findall(r"`((?:src|include|apps|bench|tests|scripts|cmake|docs|examples)/[\w./-]+)`", block[0]):
                if not (ROOT / name).exists():
                    errors.append(f"{path.relative_to(ROOT)}: {name} does not exist")
    return errors


def check_generated() -> Errors:
    errors = []
    for script in ("tables.py", "plot_speed.py"):
        done = subprocess.run([sys.executable, ROOT / "bench" / script, "--check"], capture_output=True, text=True)
        if done.returncode != 0:
            errors += done.stderr.strip().splitlines()
    return errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", action="store_true")
    args = parser.parse_args()
    documents = tracked("*.md")
    errors, targets = check_links(documents)
    errors += check_reachable(documents, targets) + check_sources() + check_layers() + check_design(documents) + check_columns(documents)
    errors += check_generated()
    if args.paths:
        errors += check_paths(documents)
    for error in errors:
        print(f"check_docs: {error}", file=sys.stderr)
    print(f"check_docs: {len(documents)} documents, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
