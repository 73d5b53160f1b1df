#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws and tabulates the results of bench_cuda.

    plot_cuda.py RESULT.json             docs/images/cuda-<name of the file>.svg, or --picture FILE
    plot_cuda.py RESULT.json --tables    Markdown tables instead
    plot_cuda.py RESULT.json --write     puts the tables between the markers of docs/kernels-cuda.md and README.md; a table
                                         whose object the file lacks is left as it is (bench_humming.py adds "humming")

The picture: speed of the products over tokens, for each shape, beside cuBLASLt and what reading 2-bit weights once at the
memory bandwidth of the same run allows.
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "docs" / "kernels-cuda.md", ROOT / "README.md")
PEERS = {"bfloat16": "cuBLASLt bf16", "int8": "cuBLASLt int8", "float8": "cuBLASLt fp8"}
COLORS = {"bfloat16": "tab:grey", "int8": "tab:orange", "float8": "tab:green", "trit": "tab:blue", "trit_programmatic": "tab:red"}


def mean(values) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def shape_of(product: dict) -> tuple[int, int]:
    return product["out_features"], product["in_features"]


def teraops(product: dict, microseconds: float) -> float:
    return 2 * product["tokens"] * product["out_features"] * product["in_features"] / microseconds / 1e6


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
        axes.set(xscale="log", yscale="log", ylim=(2, 3000), title=f"{shape[0]} x {shape[1]}", xlabel="tokens M")
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("TOP/s")
    grid.flat[0].legend(fontsize=7)
    figure.suptitle(f"Ternary products on {data['gpu']}, cuBLASLt {data['cublaslt']}")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(path)


def table(heading: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def best_peer(product: dict) -> float:
    return min(product["microseconds"][name] for name in PEERS if name in product["microseconds"])


def ratio_text(ratios: list[float]) -> str:
    return f"{mean(ratios):.2f} ({min(ratios):.2f})"


def cuda_ratios(data: dict) -> str:
    rows = []
    for tokens in dict.fromkeys(product["tokens"] for product in data["products"]):
        chosen = [product for product in data["products"] if product["tokens"] == tokens]
        us = [product["microseconds"] for product in chosen]
        rows.append([f"{tokens:,}",
                     ratio_text([u["bfloat16"] / u["trit"] for u in us]),
                     ratio_text([u["bfloat16"] / u["trit_programmatic"] for u in us]),
                     ratio_text([best_peer(p) / u["trit"] for p, u in zip(chosen, us)]),
                     ratio_text([best_peer(p) / u["trit_programmatic"] for p, u in zip(chosen, us)])])
    return table(["M", "bf16 / trit", "bf16 / trit, programmatic", "best of bf16, int8, fp8 / trit", "best / trit, programmatic"], rows)


def cuda_products(data: dict) -> str:
    rows = []
    for product in data["products"]:
        us = product["microseconds"]
        if product["tokens"] in (1, 16, 64, 256, 1024, 4096):
            rows.append([f"{product['out_features']} x {product['in_features']}", f"{product['tokens']:,}"] +
                        [f"{us[name]:.1f}" if name in us else "-"
                         for name in ("bfloat16", "int8", "float8", "trit", "trit_programmatic", "trit_layer_programmatic")] +
                        [f"{teraops(product, us['trit_programmatic']):.0f}"])
    return table(["N x K", "M", "bf16", "int8", "fp8", "trit", "programmatic", "layer", "TOP/s"], rows)


def cuda_rows(data: dict) -> str:
    rows = data["rows"]
    read = data["memory_read_gigabytes_per_second"]
    return table(["kernel", "figure", "share of the read bandwidth"], [
        ["reading 4 GiB", f"{read:.0f} GB/s", "1"],
        [f"norm_quant, bf16, {rows['norm_quant_tokens']:,} rows of {rows['inputs']}", f"{rows['norm_quant_gigabytes_per_second']:.0f} GB/s",
         f"{rows['norm_quant_share_of_read_bandwidth']:.2f}"],
        ["norm_quant, one row", f"{rows['norm_quant_one_token_microseconds']:.1f} us", ""],
        [f"absmean and ternarize_pack of {rows['inputs']} x {rows['inputs']} fp32", f"{rows['ternarize_pack_gigabytes_per_second']:.0f} GB/s",
         f"{rows['ternarize_pack_share_of_read_bandwidth']:.2f}"]])


def cuda_tuning(data: dict) -> str:
    rows = []
    for tokens in dict.fromkeys(product["tokens"] for product in data["tuning"]["products"]):
        chosen = [product for product in data["tuning"]["products"] if product["tokens"] == tokens]
        ratios = [product["ratio"] for product in chosen]
        worst = chosen[ratios.index(max(ratios))]
        rows.append([f"{tokens:,}", f"{mean(ratios):.3f}", f"{max(ratios):.2f}"] +
                    ([f"{shape_of(worst)[0]} x {shape_of(worst)[1]}", worst["table_plan"], worst["best_plan"]]
                     if max(ratios) > 1 else ["", "", ""]))
    return table(["M", "mean", "largest", "at", "table", "fastest"], rows)


def cuda_profile(data: dict) -> str:
    rows = []
    for one in data.get("profile", []):
        product = one["kernel"].startswith(("decode", "gemm"))
        rows.append([one["kernel"].removesuffix("_kernel"), f"{one['shape'].replace('x', ' x ')}, M = {one['tokens']}" if product else "8192 inputs",
                     f"{one['microseconds']:.1f}"] + [f"{one[share]:.0f}" for share in ("memory", "cache", "sm", "issue")])
    return table(["kernel", "N x K", "us", "memory %", "second-level cache %", "busiest pipe %", "issue slots %"], rows)


def cuda_humming(data: dict) -> str:
    found = data["humming"]
    shapes = ", ".join(dict.fromkeys(f"{r['out_features']} x {r['in_features']}" for r in found["results"]))
    rows = [[f"{m['tokens']:,}"] + [f"{m[name]:.2f} ({m['least_' + name]:.2f})" for name in ("ratio_to_trit", "ratio_to_trit_programmatic")]
            for m in found["means"]]
    return (f"{found['gpu']}, humming-kernels {found['humming_kernels']}, {shapes}:\n\n" +
            table(["M", "humming / trit", "humming / trit, programmatic"], rows))


TABLES = {"cuda_ratios": cuda_ratios, "cuda_products": cuda_products, "cuda_rows": cuda_rows, "cuda_tuning": cuda_tuning,
          "cuda_profile": cuda_profile, "cuda_humming": cuda_humming}


def write(tables: dict[str, str]) -> None:
    for path in DOCUMENTS:
        text = path.read_text()
        for name, content in tables.items():
            text = re.sub(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", lambda m, c=content: m[1] + c + "\n" + m[2], text, flags=re.S)
        path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--picture", type=pathlib.Path, help="file for the picture, instead of docs/images")
    args = parser.parse_args()
    data = json.loads(args.result.read_text())
    tables = {}
    for name, make in TABLES.items():
        try:
            tables[name] = make(data)
        except KeyError as missing:
            print(f"plot_cuda: {name}: {args.result} has no {missing}", file=sys.stderr)
    if args.write:
        write(tables)
    elif args.tables:
        print("\n\n".join(tables.values()))
    else:
        picture(data, args.picture or ROOT / "docs" / "images" / f"cuda-{args.result.stem}.svg")


if __name__ == "__main__":
    main()
