#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the pages of docs/results and the tables of README.md from bench/results/*.json. No figure in them is typed.

    tables.py                        writes them
    tables.py --check                writes nothing; exit code 1, and a line for each file that is out of date
    tables.py --print RESULT.json    prints the tables of one file, which may be of another machine

Each file of bench/results makes one page, but those listed in PAGES, which share one. A table whose object a file lacks is
left out. README.md has its tables between lines <!-- table NAME --> and <!-- end -->, and single figures between
<!-- figure NAME --> and <!-- end --> (headline.py).
"""
import argparse
import json
import pathlib
import re
import sys
import textwrap
import typing

import cpu_tables
import gpu_tables
import headline

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGES_FOLDER = ROOT / "docs" / "results"
README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
DISGUISE = ("A virtual machine whose CPUID says \"family 6 model 167\", a model that has no AMX; this one has AMX (and AVX-512 VNNI and "
            "VBMI), so its true model is unknown. The bitnet.cpp measured here is that of October 2024; its kernels of January 2026 are on the "
            "page [beside llama.cpp and bitnet.cpp](xeon-amx-2-cores-peers.md).")


class Page(typing.NamedTuple):
    name: str  # of the file in docs/results
    title: str
    about: str  # what is known of the machine besides what the JSON says
    results: list[str]  # files in bench/results, without .json


PAGES = [
    Page("xeon-amx-2-cores", "2-core Xeon with AMX", DISGUISE,
         ["intel-r-xeon-r-processor-family-6-model-167-2-cores", "hybrid_xeon_avx512", "fuzz_xeon_avx512",
          "train_layer_cpu_xeon_amx"]),
    Page("xeon-amx-2-cores-peers", "2-core Xeon with AMX, beside llama.cpp and bitnet.cpp",
         "A virtual machine; its CPUID says family 6 model 207 (5th generation Xeon).",
         ["intel-r-xeon-r-processor-family-6-model-207-2-cores"]),
    Page("xeon-avx512-2-cores", "2-core Xeon with AVX-512 VNNI, without AMX",
         "A virtual machine; its CPUID says family 6 model 207 (5th generation Xeon), with neither AMX nor AVX-VNNI.",
         ["intel-xeon-avx-512-vnni-2-cores"]),
    Page("zen4-2-cores", "2-core AMD EPYC with AVX-512 VNNI", "A virtual machine; its CPUID says family 25 model 17 (Zen 4).",
         ["amd-epyc-avx512-vnni-2-cores"]),
    Page("zen3-2-cores", "2-core AMD EPYC with AVX2", "A virtual machine; its CPUID says family 25 model 1 (Zen 3). Other guests share its "
         "cores: the same product takes up to 1.8 times as long from one minute to the next, so only ratios of one run mean anything.",
         ["amd-epyc-avx2-2-cores"]),
    Page("xeon-amx-16-cores", "16-core Xeon with AMX",
         "A virtual machine that shares its cores with others; its CPUID says family 6 model 207 (5th generation Xeon). A thread whose "
         "core another guest uses reaches 35 to 50 % of the peak in a product, an undisturbed one 68 to 75 %: a row of one thread with "
         "less than 2,500 GOP/s is of the first kind, and the ratio beside it means nothing.",
         ["intel-r-xeon-r-processor-family-6-model-207-16-cores"]),
    Page("h200", "NVIDIA H200", "One GPU, driver 580, CUDA 13.0; the CPU beside it is a 16-core Xeon with AMX. What is timed, and how, is on the page "
         "[about the measurements](README.md#gpu).", ["nvidia-h200", "train_layer_h200", "train_h200"]),
]


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def machine(data: dict) -> list[str]:
    """Lines about the machine and the time of measuring."""
    here = data.get("machine", {})
    facts = [("CPU", here.get("cpu")), ("cores", here.get("cores")), ("compiler", here.get("compiler")), ("GPU", data.get("gpu")),
             ("multiprocessors", data.get("multiprocessors")), ("measured", (here.get("date") or data.get("date") or "")[:10])]
    return [f"{name} {value}" for name, value in facts if value]


def tables(data: dict) -> dict[str, str]:
    """Heading -> text, for all that the file has."""
    texts = {}
    for heading, make in (gpu_tables.TABLES if "gpu" in data else cpu_tables.TABLES).items():
        try:
            texts[heading] = make(data)
        except KeyError:
            pass
    return texts


def wrapped(text: str) -> str:
    """Paragraphs and list items at 100 columns; tables, headings and pictures as they are."""
    lines = []
    for line in text.split("\n"):
        if line.startswith(("|", "#", "!")):
            lines.append(line)
        else:
            lines += textwrap.wrap(line, 100, subsequent_indent="  " if line.startswith("* ") else "", break_long_words=False,
                                   break_on_hyphens=False) or [""]
    return "\n".join(lines)


def text_of(page: Page) -> str:
    files = {name: load(name) for name in page.results}
    parts = [f"# {page.title}", "Generated by `bench/tables.py`; do not edit. Words and methods: [README.md](README.md)."]
    if page.about:
        parts.append(page.about)
    parts.append("\n".join(f"* [{name}.json](../../bench/results/{name}.json): " + ", ".join(machine(data)) for name, data in files.items()))
    for kind in ("linear", "cuda"):  # drawn by plot.py and plot_cuda.py
        parts += [f"![speed over tokens](../images/{kind}-{name}.svg)" for name in files if (IMAGES / f"{kind}-{name}.svg").exists()]
    for data in files.values():
        shared = {heading for other in files.values() if other is not data for heading in tables(other)}
        for heading, text in tables(data).items():
            if heading in shared and data is not next(iter(files.values())):
                continue  # the first file of a page has the newest figures
            parts.append(f"## {heading}\n\n{text}")
    return wrapped("\n\n".join(parts)) + "\n"


def pages() -> list[Page]:
    listed = {name for page in PAGES for name in page.results}
    found = list(PAGES)
    for path in sorted(RESULTS.glob("*.json")):
        data = json.loads(path.read_text())
        if path.stem not in listed and tables(data):
            found.append(Page(path.stem, data.get("machine", {}).get("cpu") or data.get("gpu") or path.stem, "", [path.stem]))
    return found


def readme(old: str) -> str:
    for name, make in headline.TABLES.items():
        text = make(load)
        old = re.sub(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", lambda found, t=text: found[1] + t + "\n" + found[2], old, flags=re.S)
    for name, make in headline.FIGURES.items():
        text = make(load)
        old = re.sub(rf"(<!-- figure {name} -->).*?(<!-- end -->)", lambda found, t=text: found[1] + t + found[2], old, flags=re.S)
    return old


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--print", type=pathlib.Path, metavar="RESULT.json", dest="result")
    args = parser.parse_args()
    if args.result:
        for heading, text in tables(json.loads(args.result.read_text())).items():
            print(f"## {heading}\n\n{text}\n")
        return 0
    outputs = {PAGES_FOLDER / f"{page.name}.md": text_of(page) for page in pages()}
    outputs[README] = readme(README.read_text())
    stale = [path for path, text in outputs.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if args.check:
            print(f"{path.relative_to(ROOT)} is out of date: run bench/tables.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(outputs[path])
            print(f"tables: {path.relative_to(ROOT)}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
