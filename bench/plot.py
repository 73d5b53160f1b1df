#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the results of bench_linear: speed of the packed product over tokens, beside the machine's limits.

    plot.py [--results bench/results] [--output docs/images]

One picture per file of RESULTS that holds the object "linear": linear-<machine>.svg. Solid lines are weights from
cache, dashed ones weights from memory; grey lines are the limits measured in the same run: the int8 peak, and what
memory bandwidth allows where the weights are read once per product.
"""
import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLORS = {"scalar": "tab:brown", "avx2": "tab:orange", "avx_vnni": "tab:green", "avx512_vnni": "tab:blue",
          "amx": "tab:purple"}


def memory_limit(report: dict, result: dict, tokens: int) -> float:
    """GOP/s where reading the weights once is all that takes time."""
    bytes_ = result["weight_gigabytes_per_second"] * result["microseconds"] * 1e3
    operations = 2 * tokens * result["out_features"] * result["in_features"]
    return operations / (bytes_ / report["memory_gigabytes_per_second"])


def draw(axes, report: dict, shape: tuple[int, int]) -> None:
    chosen = [r for r in report["results"] if (r["out_features"], r["in_features"]) == shape]
    tokens = sorted({r["tokens"] for r in chosen})
    for limit in report["limits"]:
        if limit["instruction"]:
            axes.axhline(limit["gops"], color=COLORS.get(limit["backend"]), linewidth=0.8, linestyle=":")
            axes.annotate(f"{limit['instruction']} peak", (tokens[0], limit["gops"]), fontsize=7, va="bottom",
                          color=COLORS.get(limit["backend"]))
    for backend in dict.fromkeys(r["backend"] for r in chosen):
        for source, style in (("cache", "-"), ("memory", "--")):
            line = sorted((r["tokens"], r["gops"]) for r in chosen
                          if r["backend"] == backend and r["weights_from"] == source)
            if line:
                axes.plot(*zip(*line), style, marker="o", markersize=3, color=COLORS.get(backend),
                          label=f"{backend}, weights from {source}")
    streamed = next((r for r in chosen if r["weights_from"] == "memory"), None)
    if streamed:
        axes.plot(tokens, [memory_limit(report, streamed, m) for m in tokens], color="grey", linewidth=0.8,
                  linestyle="--", label="2-bit weights at memory bandwidth")
    top = 1.15 * max([limit["gops"] for limit in report["limits"]] + [r["gops"] for r in chosen])
    axes.set(xscale="log", ylim=(0, top), xlabel="tokens M", xticks=tokens, xticklabels=tokens,
             title=f"{shape[0]} x {shape[1]}, {report['threads']} thread{'s' if report['threads'] > 1 else ''}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def picture(path: pathlib.Path, output: pathlib.Path) -> None:
    data = json.loads(path.read_text())
    if "linear" not in data:
        return
    reports = data["linear"]
    shapes = list(dict.fromkeys((r["out_features"], r["in_features"]) for r in reports[0]["results"]))
    figure, grid = pyplot.subplots(len(reports), len(shapes), figsize=(4.2 * len(shapes), 3.4 * len(reports)),
                                   squeeze=False)
    for row, report in zip(grid, reports):
        for axes, shape in zip(row, shapes):
            draw(axes, report, shape)
        row[0].set_ylabel("GOP/s")
    grid[0][0].legend(fontsize=7, loc="lower right")
    machine = data["machine"]
    figure.suptitle(f"Packed ternary product: {machine['cpu']}, {machine['cores']} cores, {machine['compiler']}, "
                    f"{machine['date'][:10]}", fontsize=10)
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
