#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Markdown tables from the results of a machine, and the places of the documents that hold them.

    tables.py RESULT.json                prints every table
    tables.py RESULT.json --write        puts them between the markers of docs/kernels.md and README.md:
                                         <!-- table NAME --> ... <!-- end -->

Tables: machine, product, scaling, product_cnn, peers, external_peers, rows, eval, readme, readme_peers. A table whose
object the file lacks is left as it is. --only NAME,... takes these alone, from the file of another machine.
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "docs" / "kernels.md", ROOT / "README.md")
BACKENDS = ["amx", "avx512_vnni", "avx_vnni", "avx2", "scalar"]  # the first that a machine has is its default
LARGE = [(2560, 2560), (6912, 2560), (2560, 6912), (4096, 4096), (14336, 4096), (4096, 14336)]


def mean(values) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def table(heading: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def threads_text(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def machine(data: dict) -> str:
    here = data["machine"]
    text = f"Measured on {here['cpu']}, {here['cores']} cores"
    if here.get("compiler"):
        text += f", {here['compiler']}"
    if here.get("date"):
        text += f", {here['date'][:10]}"
    limits = []
    for limit in data.get("linear", {}).get("limits", []):
        if limit["int8_gops"]:
            limits.append(f"{limit['int8_instruction']} {limit['int8_gops']:.0f} GOP/s on {threads_text(limit['threads'])}")
    for threads in sorted({limit["threads"] for limit in data.get("linear", {}).get("limits", [])}):
        rate = next(limit["memory_gigabytes_per_second"] for limit in data["linear"]["limits"] if limit["threads"] == threads)
        limits.append(f"memory read {rate:.1f} GB/s on {threads_text(threads)}")
    return text + (".\nIts limits, from the last run that was merged into the file (shares below use those of each shape's own "
                   "rounds): " + "; ".join(limits) if limits else "") + "."


def share_text(results: list[dict]) -> str:
    """Null is a product that was faster than the limit's measurement."""
    shares = [result["share"] for result in results if result["share"] is not None]
    return f"{100 * mean(shares):.0f} %" if shares else "-"


def of_large(results: list[dict]) -> list[dict]:
    return [result for result in results if (result["out_features"], result["in_features"]) in LARGE]


def shapes_text(results: list[dict]) -> str:
    shapes = sorted({(r["out_features"], r["in_features"]) for r in results}, key=lambda shape: shape[0] * shape[1])
    names = ", ".join(f"{n} x {k}" for n, k in shapes)
    return f"of {names}" if len(shapes) == 1 else f"geometric means over {names}"


def product(data: dict) -> str:
    """One row per backend, layout, source and threads, over the large shapes that were measured."""
    results = of_large(data["linear"]["results"])
    tokens = sorted({result["tokens"] for result in results})
    groups: dict[tuple, dict[int, list[dict]]] = {}
    for result in results:
        key = (result["backend"], result.get("layout", ""), result["weights_from"], result["threads"])
        groups.setdefault(key, {}).setdefault(result["tokens"], []).append(result)
    rows = []
    for key, by_tokens in sorted(groups.items(), key=lambda item: (item[0][3], item[0][0], item[0][1], item[0][2])):
        cells = []
        for count in tokens:
            found = by_tokens.get(count, [])
            if not found:
                cells.append("")
                continue
            limits = statistics.mode(result["limit"] for result in found)
            cells.append(f"{mean(r['gops'] for r in found):.0f} ({share_text(found)} {limits.split()[0]})")
        rows.append([key[0], key[1], key[2], str(key[3])] + cells)
    return (f"GOP/s, and in brackets the share of the limit that binds (memory, cache or int8 peak), {shapes_text(results)}:\n\n" +
            table(["backend", "layout", "weights from", "threads"] + [f"M = {count}" for count in tokens], rows))


def scaling(data: dict) -> str:
    """One row per layer of many tokens and source: one thread, the most threads, and what they gain."""
    groups: dict[tuple, dict[tuple, dict]] = {}
    for r in of_large(data["linear"]["results"]):
        if r["backend"] == "amx" and r["tokens"] >= 128:
            groups.setdefault((r["out_features"], r["in_features"], r["weights_from"]), {})[r["threads"], r["tokens"]] = r
    if not groups:
        raise KeyError("products of amx")
    most = max(threads for found in groups.values() for threads, _ in found)
    tokens = sorted({count for found in groups.values() for _, count in found})

    def cell(one: dict | None, all_threads: dict | None) -> str:
        texts = [f"{r['gops']:.0f} ({share_text([r])})" for r in (one, all_threads) if r]
        if one and all_threads:
            texts.append(f"{all_threads['gops'] / one['gops']:.1f}x")
        return ", ".join(texts)

    rows = [[f"{n} x {k}", source] + [cell(found.get((1, count)), found.get((most, count))) for count in tokens]
            for (n, k, source), found in groups.items()]
    return (f"AMX, GOP/s and share of the peak on one thread, the same on {most} threads, and their ratio:\n\n" +
            table(["N x K", "weights from"] + [f"M = {count}" for count in tokens], rows))


def product_cnn(data: dict) -> str:
    results = [r for r in data["linear"]["results"] if (r["out_features"], r["in_features"]) in ((512, 4096), (10, 512))]
    if not results:
        raise KeyError("layers of SimpleBitNetCNN")
    tokens = sorted({result["tokens"] for result in results})
    groups: dict[tuple, dict[int, dict]] = {}
    for result in results:
        key = (result["out_features"], result["in_features"], result["backend"], result.get("layout", ""), result["threads"])
        groups.setdefault(key, {})[result["tokens"]] = result
    rows = [[f"{key[0]} x {key[1]}", key[2], key[3], str(key[4])] +
            [f"{found[m]['microseconds']:.1f} / {found[m]['layer_microseconds']:.1f}" if m in found else "" for m in tokens]
            for key, found in sorted(groups.items(), key=lambda item: (item[0][4], -item[0][0], item[0][2]))]
    return ("SimpleBitNetCNN's layers from cache, microseconds of the product / of the layer with RMSNorm and quantisation:\n\n" +
            table(["N x K", "backend", "layout", "threads"] + [f"M = {count}" for count in tokens], rows))


def peers(data: dict) -> str:
    found = data["peers"]
    rows = [[str(m["threads"]), str(m["tokens"]), m["peer"], f"{m['ratio_to_product']:.2f}", f"{m['least_ratio_to_product']:.2f}",
             f"{m['ratio_to_quantised_product']:.2f}"] for m in found["means"]]
    return (f"Time of {found['library']} / time of the ternary layer, weights from memory, {shapes_text(found['results'])}:\n\n" +
            table(["threads", "M", "peer", "product", "least shape", "with quantisation"], rows))


def versions_text(found: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in found["versions"].items())


def external_peers(data: dict) -> str:
    found = data["external_peers"]
    rows = [[m["backend"], str(m["threads"]), str(m["tokens"]), m["peer"], f"{m['ratio']:.2f}", f"{m['least_ratio']:.2f}"]
            for m in found["means"]]
    return (f"{data['machine']['cpu']}, {data['machine']['cores']} cores. Time of the peer / time of the ternary layer, quantisation of fp32 "
            f"activations included in both (not in *I2_S kernels*, the peer's product alone), {shapes_text(found['results'])} "
            f"({versions_text(found)}):\n\n" +
            table(["backend", "threads", "M", "peer", "geometric mean", "least shape"], rows))


def readme_peers(data: dict) -> str:
    """A row for each peer on one thread: the ratio by backend and tokens."""
    found = data["external_peers"]
    means = [m for m in found["means"] if m["threads"] == 1]
    columns = sorted({(m["backend"], m["tokens"]) for m in means}, key=lambda column: (BACKENDS.index(column[0]), column[1]))
    rows = [["bitnet.cpp " + peer if peer.startswith("I2_S") else "llama.cpp " + peer] +
            [next((f"{m['ratio']:.1f}x" for m in means if (m["peer"], m["backend"], m["tokens"]) == (peer, *column)), "") for column in columns]
            for peer in sorted({m["peer"] for m in means})]
    return (f"{data['machine']['cpu']}, {data['machine']['cores']} cores, one thread; {versions_text(found)}; time of the peer / time of our kernels:\n\n" +
            table(["against"] + [f"{backend}, M = {tokens}" for backend, tokens in columns], rows))


def rows_table(data: dict) -> str:
    found = data["rows"]
    rows = []
    for r in found["results"]:
        rows.append([r["backend"], r["kernel"], f"{r['cache_ns_per_input']:.3f}", f"{r['l2_ns_per_input']:.3f}",
                     f"{r['memory_ns_per_input']:.3f} ({100 * r['memory_share_of_read']:.0f} %)",
                     f"{r['memory_all_threads_ns_per_input']:.3f} ({100 * r['memory_all_threads_share_of_read']:.0f} %)"])
    return (f"Nanoseconds per input at K = {found['results'][0]['in_features']}; in brackets the bytes read and written over "
            f"the read bandwidth of\nthe same threads ({found['memory_gigabytes_per_second']:.1f} GB/s on one, "
            f"{found['memory_gigabytes_per_second_all_threads']:.1f} on {found['threads']}):\n\n" +
            table(["backend", "kernel", "one row", "in L2", "memory, 1 thread", f"memory, {found['threads']} threads"], rows))


def eval_table(data: dict) -> str:
    found = data["eval"]
    rows = []
    for r in found["results"]:
        rate = r["images_per_second"]
        rows.append([str(r["threads"]), str(r["batch"]), f"{rate['trit']:.0f}", f"{rate[r['peer_memory_format']]:.0f}",
                     f"{r['ratio']:.2f}"])
    same = found["same_predictions"]["fp32 with 8-bit activations"]
    return (f"Images per second of SimpleBitNetCNN, `trit eval` and {found['peer']} ({same} of {found['test_images']} "
            "predictions the same):\n\n" + table(["threads", "batch", "trit", "PyTorch fp32", "ratio"], rows))


def readme(data: dict) -> str:
    """Few lines: the ratios to oneDNN and to PyTorch, by the backend that the machine takes by itself."""
    rows = []
    for m in data.get("peers", {}).get("means", []):
        if m["tokens"] in (1, 8, 128):
            rows.append([f"{data['peers']['library']} {m['peer']}", str(m["threads"]), str(m["tokens"]), f"{m['ratio_to_product']:.1f}x"])
    for r in data.get("eval", {}).get("results", []):
        rows.append([f"{data['eval']['peer']}: the CNN", str(r["threads"]), str(r["batch"]), f"{r['ratio']:.1f}x"])
    if not rows:
        raise KeyError("peers")
    here = data["machine"]
    return (f"{here['cpu']}, {here['cores']} cores; layers whose weights stream from memory, {shapes_text(data.get('peers', {}).get('results', []))}:\n\n" + table(["against", "threads", "batch", "their time / ours"], rows))


TABLES = {"machine": machine, "product": product, "scaling": scaling, "product_cnn": product_cnn, "peers": peers,
          "external_peers": external_peers, "rows": rows_table, "eval": eval_table, "readme": readme,
          "readme_peers": readme_peers}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", help="names of tables, by commas")
    args = parser.parse_args()
    chosen = args.only.split(",") if args.only else list(TABLES)
    if unknown := set(chosen) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    data = json.loads(args.result.read_text())
    texts = {}
    for name in chosen:
        try:
            texts[name] = TABLES[name](data)
        except KeyError as missing:
            print(f"tables: {name}: {args.result} has no {missing}", file=sys.stderr)
    if not args.write:
        print("\n\n".join(f"<!-- table {name} -->\n{text}\n<!-- end -->" for name, text in texts.items()))
        return 0
    for path in DOCUMENTS:
        old = path.read_text()
        new = re.sub(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)",
                     lambda found: found[1] + (texts[found[2]] + "\n" if found[2] in texts else found[0].split("\n", 1)[1].rsplit("<!-- end -->", 1)[0]) + found[3],
                     old, flags=re.DOTALL)
        if new != old:
            path.write_text(new)
            print(f"tables: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
