#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the results of bench_linear: speed of the product over tokens, beside the limits of the machine.

    plot.py [--results bench/results] [--output docs/images]

One picture per file of RESULTS that has the object "linear": linear-<machine>.svg, a column per layer shape, a row per
number of threads. Solid lines are weights from cache, dashed lines weights from memory. Dotted lines are the limits that
the same rounds measured: the int8 peak of each backend's instruction, and the speed at which the memory's bandwidth lets
2-bit weights be read once per product.
"""
import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from tables import PAGES  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLORS = {"scalar": "tab:brown", "avx2": "tab:orange", "avx_vnni": "tab:green", "avx512_vnni": "tab:blue",
          "amx": "tab:purple"}


SHAPES = [(2560, 2560), (4096, 4096), (14336, 4096), (512, 4096)]


def draw(axes, linear: dict, threads: int, shape: tuple[int, int]) -> None:
    chosen = [r for r in linear["results"] if r["threads"] == threads and (r["out_features"], r["in_features"]) == shape]
    limits = [limit for limit in linear["limits"] if limit["threads"] == threads]
    tokens = sorted({r["tokens"] for r in chosen})
    if not chosen:  # not measured with so many threads
        axes.set_axis_off()
        return
    peaks = {limit["int8_instruction"]: limit for limit in limits if limit["int8_gops"]}
    for limit in peaks.values():
        color = COLORS.get(limit["backend"])
        axes.axhline(limit["int8_gops"], color=color, linewidth=0.8, linestyle=":")
        axes.annotate(f"{limit['int8_instruction']} peak", (tokens[0], limit["int8_gops"]), fontsize=7, va="bottom", color=color)
    # By backend and source the layout that is faster at each M: all of them would hide each other.
    for backend in dict.fromkeys(r["backend"] for r in chosen):
        for source, style in (("cache", "-"), ("memory", "--")):
            best = {m: max((r["gops"] for r in chosen if r["backend"] == backend and r["weights_from"] == source
                            and r["tokens"] == m), default=None) for m in tokens}
            line = [(m, gops) for m, gops in best.items() if gops]
            if line:
                axes.plot(*zip(*line), style, marker="o", markersize=3, color=COLORS.get(backend),
                          label=f"{backend}, weights from {source}")
    if any(r["weights_from"] == "memory" for r in chosen):
        bandwidth = limits[0]["memory_gigabytes_per_second"]
        axes.plot(tokens, [8 * m * bandwidth for m in tokens], color="grey", linewidth=0.8, linestyle=":",
                  label="2-bit weights at memory bandwidth")
    top = 2 * max([peak["int8_gops"] for peak in peaks.values()] + [r["gops"] for r in chosen])
    axes.set(xscale="log", yscale="log", ylim=(top / 300, top), xlabel="tokens M", xticks=tokens, xticklabels=tokens,
             title=f"{shape[0]} x {shape[1]}, {threads} thread{'s' if threads > 1 else ''}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def picture(path: pathlib.Path, output: pathlib.Path) -> None:
    data = json.loads(path.read_text())
    if "linear" not in data:
        return
    linear = data["linear"]
    threads = sorted({r["threads"] for r in linear["results"]})
    there = {(r["out_features"], r["in_features"]) for r in linear["results"]}
    shapes = [shape for shape in SHAPES if shape in there] or sorted(there)
    figure, grid = pyplot.subplots(len(threads), len(shapes), figsize=(4.2 * len(shapes), 3.6 * len(threads)), squeeze=False)
    for row, count in zip(grid, threads):
        for axes, shape in zip(row, shapes):
            draw(axes, linear, count, shape)
        row[0].set_ylabel("GOP/s")
    grid[0][0].legend(fontsize=6, loc="lower right")
    machine = data["machine"]
    name = next((page.title for page in PAGES if path.stem in page.results), f"{machine['cpu']}, {machine['cores']} cores")
    figure.suptitle(f"Product of packed ternary weights: {name}, {machine['compiler']}, {machine['date'][:10]}", fontsize=10)
    figure.tight_layout()
    output.mkdir(parents=True, exist_ok=True)
    target = output / f"linear-{path.stem}.svg"
    # No date and fixed ids: the same results give the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = "trit"
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
    print(f"plot: {target}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench" / "results")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    for path in sorted(args.results.glob("*.json")):
        picture(path, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
