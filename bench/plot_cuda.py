#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the results of bench_cuda.

    plot_cuda.py RESULT.json [--picture FILE]     FILE is docs/images/cuda-<name of the result>.svg if not given

Speed of the products over tokens, for each shape, beside cuBLASLt and the speed at which the memory bandwidth of the same
run allows 2-bit weights to be read once. bench/tables.py writes the tables.
"""
import argparse
import json
import pathlib

from gpu_tables import PEERS, teraops
from markdown import shape_of, shape_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLORS = {"bfloat16": "tab:grey", "int8": "tab:orange", "float8": "tab:green", "trit": "tab:blue", "trit_programmatic": "tab:red"}


def picture(data: dict, path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = list(dict.fromkeys(shape_of(product) for product in data["products"]))
    figure, grid = pyplot.subplots(2, (len(shapes) + 1) // 2, figsize=(4 * ((len(shapes) + 1) // 2), 7), sharey=True)
    for axes, shape in zip(grid.flat, shapes):
        chosen = [product for product in data["products"] if shape_of(product) == shape]
        tokens = [product["tokens"] for product in chosen]
        for name, label in {**PEERS, "trit": "trit", "trit_programmatic": "trit, programmatic launch"}.items():
            points = [(p["tokens"], teraops(p, p["microseconds"][name])) for p in chosen if name in p["microseconds"]]
            if points:
                axes.plot(*zip(*points), marker="o", markersize=3, color=COLORS[name], label=label)
        rate = data["memory_read_gigabytes_per_second"]
        axes.plot(tokens, [8 * m * rate / 1e3 for m in tokens], color="black", linewidth=0.8, linestyle=":",
                  label="2-bit weights at memory bandwidth")
        axes.axhline(1979, color="tab:purple", linewidth=0.8, linestyle=":", label="int8 tensor cores, data sheet")
        axes.set(xscale="log", yscale="log", ylim=(2, 3000), title=shape_text(shape), xlabel="tokens M")
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("TOP/s")
    grid.flat[0].legend(fontsize=7)
    figure.suptitle(f"Ternary products on {data['gpu']}, cuBLASLt {data['cublaslt']}")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--picture", type=pathlib.Path)
    args = parser.parse_args()
    picture(json.loads(args.result.read_text()), args.picture or ROOT / "docs" / "images" / f"cuda-{args.result.stem}.svg")


if __name__ == "__main__":
    main()
