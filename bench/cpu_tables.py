# SPDX-License-Identifier: MIT
"""Tables of a CPU's results: what bench/run.py, bench_eval.py, bench_train.py, bench_io.py and external_peers.py measured.

Each function takes the JSON of one file and raises KeyError where the file lacks what the table shows.
"""
import statistics

from markdown import mean, shape_of, shape_text, shapes_text, table, threads_text, versions_text

LARGE = [(2560, 2560), (6912, 2560), (2560, 6912), (4096, 4096), (14336, 4096), (4096, 14336)]
CNN = [(512, 4096), (10, 512)]  # the ternary layers of SimpleBitNetCNN


def share_text(results: list[dict]) -> str:
    """A null share is a product that was faster than the measured limit."""
    shares = [result["share"] for result in results if result["share"] is not None]
    return f"{100 * mean(shares):.0f} %" if shares else "-"


def limits(data: dict) -> str:
    found = data["linear"]["limits"]
    rows = [[limit["int8_instruction"], str(limit["threads"]), f"{limit['int8_gops']:.0f} GOP/s"]
            for limit in found if limit["int8_gops"]]
    for threads in sorted({limit["threads"] for limit in found}):
        rate = next(limit["memory_gigabytes_per_second"] for limit in found if limit["threads"] == threads)
        rows.append(["memory read", str(threads), f"{rate:.1f} GB/s"])
    return ("Limits of the last run that was merged into the file; the shares below use the limits of each shape's own "
            "rounds.\n\n" + table(["limit", "threads", "measured"], rows))


def product(data: dict) -> str:
    """One row per backend, layout, source and number of threads, over the large shapes that were measured."""
    results = [result for result in data["linear"]["results"] if shape_of(result) in LARGE]
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
            limit = statistics.mode(result["limit"] for result in found)
            cells.append(f"{mean(r['gops'] for r in found):.0f} ({share_text(found)} {limit.split()[0]})")
        rows.append([key[0], key[1], key[2], str(key[3])] + cells)
    return (f"GOP/s and, in brackets, the share of the limit that binds (memory, cache or int8 peak), {shapes_text(results)}.\n\n" +
            table(["backend", "layout", "weights from", "threads"] + [f"M = {count}" for count in tokens], rows))


def scaling(data: dict) -> str:
    """One row per shape and source with many tokens: one thread, all threads, and their ratio."""
    groups: dict[tuple, dict[tuple, dict]] = {}
    for r in data["linear"]["results"]:
        if shape_of(r) in LARGE and r["backend"] == "amx" and r["tokens"] >= 128:
            groups.setdefault((*shape_of(r), r["weights_from"]), {})[r["threads"], r["tokens"]] = r
    if not groups:
        raise KeyError("products of amx")
    max_threads = max(threads for found in groups.values() for threads, _ in found)
    tokens = sorted({count for found in groups.values() for _, count in found})

    def cell(one: dict | None, all_threads: dict | None) -> str:
        texts = [f"{r['gops']:.0f} ({share_text([r])})" for r in (one, all_threads) if r]
        if one and all_threads:
            texts.append(f"{all_threads['gops'] / one['gops']:.1f}x")
        return ", ".join(texts)

    rows = [[f"{n} x {k}", source] + [cell(found.get((1, count)), found.get((max_threads, count))) for count in tokens]
            for (n, k, source), found in groups.items()]
    return (f"AMX: GOP/s and share of the peak on one thread, the same on {max_threads} threads, and their ratio.\n\n" +
            table(["N x K", "weights from"] + [f"M = {count}" for count in tokens], rows))


def product_cnn(data: dict) -> str:
    results = [r for r in data["linear"]["results"] if shape_of(r) in CNN]
    if not results:
        raise KeyError("layers of SimpleBitNetCNN")
    tokens = sorted({result["tokens"] for result in results})
    groups: dict[tuple, dict[int, dict]] = {}
    for result in results:
        key = (*shape_of(result), result["backend"], result.get("layout", ""), result["threads"])
        groups.setdefault(key, {})[result["tokens"]] = result
    rows = [[f"{key[0]} x {key[1]}", key[2], key[3], str(key[4])] +
            [f"{found[m]['microseconds']:.1f} / {found[m]['layer_microseconds']:.1f}" if m in found else "" for m in tokens]
            for key, found in sorted(groups.items(), key=lambda item: (item[0][4], -item[0][0], item[0][2]))]
    return ("The ternary layers of SimpleBitNetCNN, weights from cache: microseconds of the product / of the layer with RMSNorm "
            "and quantisation.\n\n" +
            table(["N x K", "backend", "layout", "threads"] + [f"M = {count}" for count in tokens], rows))


def peers(data: dict) -> str:
    found = data["peers"]
    rows = [[str(m["threads"]), str(m["tokens"]), m["peer"], f"{m['ratio_to_product']:.2f}", f"{m['least_ratio_to_product']:.2f}",
             f"{m['ratio_to_quantised_product']:.2f}"] for m in found["means"]]
    return (f"Time of {found['library']} / time of trit, weights from memory, {shapes_text(found['results'])}. oneDNN runs in the same "
            "process, its weights prepared as it asks for; int8 is the better of s8 and u8 activations. The last column counts "
            "RMSNorm and quantisation in trit's time.\n\n" +
            table(["threads", "M", "peer", "product", "smallest of the shapes", "with quantisation"], rows))


def external_peers(data: dict) -> str:
    found = data["external_peers"]
    rows = [[m["backend"], str(m["threads"]), str(m["tokens"]), m["peer"], f"{m['ratio']:.2f}", f"{m['least_ratio']:.2f}"]
            for m in found["means"]]
    peers = {m["peer"] for m in found["means"]}
    text = f"Time of the peer / time of trit, {shapes_text(found['results'])}; {versions_text(found)}."
    if any(m["backend"] == "avx2" for m in found["means"]):
        text += " The peers are built for the machine: what they have for VNNI runs beside trit's avx2 too."
    text += " All times include the quantisation of fp32 activations"
    others = []
    if "I2_S kernels" in peers:
        others.append("those of *I2_S kernels*, which are of integer sums alone")
    if "I2_S, tinyBLAS" in peers:
        others.append("those of *I2_S, tinyBLAS*, which are of fp32 outputs from activations that are quantised already")
    if others:
        text += ", except " + ", and ".join(others)
    return (f"{text}.\n\n" +
            table(["backend", "threads", "M", "peer", "geometric mean", "smallest of the shapes"], rows))


def group_peers(data: dict) -> str:
    found = data["group_peers"]
    rows = [[m["backend"], str(m["threads"]), str(m["tokens"]), m["peer"], f"{m['ratio']:.2f}", f"{m['least_ratio']:.2f}"]
            for m in found["means"]]
    return (f"Time of the peer / time of trit with float16 scales for groups of {found['group']} inputs, "
            f"{shapes_text(found['results'])}; {versions_text(found)}, built for the machine: it uses its instructions beside trit's avx2 "
            "too. All times include the quantisation of fp32 activations.\n\n" +
            table(["backend", "threads", "M", "peer", "geometric mean", "smallest of the shapes"], rows))


def group_products(data: dict) -> str:
    """Products with group scales over those without, of `bench_linear --group`."""
    results = [r for r in data["groups"]["results"] if "of_ungrouped" in r]
    cells: dict[tuple, list[float]] = {}
    for r in results:
        cells.setdefault((r["backend"], r["threads"], r["tokens"], r["weights_from"]), []).append(r["of_ungrouped"])
    lines = [[backend, str(threads), str(tokens), place, f"{statistics.geometric_mean(ratios):.3f}", f"{min(ratios):.3f}",
              f"{max(ratios):.3f}"] for (backend, threads, tokens, place), ratios in sorted(cells.items())]
    return (f"Speed with float16 scales for groups of {results[0]['group']} inputs / speed without, "
            f"{shapes_text(results)}: medians of the rounds' ratios.\n\n" +
            table(["backend", "threads", "M", "weights from", "geometric mean", "minimum", "maximum"], lines))


def rows(data: dict) -> str:
    found = data["rows"]
    lines = []
    for r in found["results"]:
        lines.append([r["backend"], r["kernel"], f"{r['cache_ns_per_input']:.3f}", f"{r['l2_ns_per_input']:.3f}",
                      f"{r['memory_ns_per_input']:.3f} ({100 * r['memory_share_of_read']:.0f} %)",
                      f"{r['memory_all_threads_ns_per_input']:.3f} ({100 * r['memory_all_threads_share_of_read']:.0f} %)"])
    return (f"Nanoseconds per input at K = {found['results'][0]['in_features']} and, in brackets, the bytes read and written over the "
            f"read bandwidth of the same threads ({found['memory_gigabytes_per_second']:.1f} GB/s on one, "
            f"{found['memory_gigabytes_per_second_all_threads']:.1f} on {found['threads']}).\n\n" +
            table(["backend", "kernel", "one row", "in L2", "memory, 1 thread", f"memory, {threads_text(found['threads'])}"], lines))


def evaluation(data: dict) -> str:
    found = data["eval"]
    lines = []
    for r in found["results"]:
        rate = r["images_per_second"]
        lines.append([str(r["threads"]), str(r["batch"]), f"{rate['trit']:,.0f}", f"{rate[r['peer_memory_format']]:,.0f}", f"{r['ratio']:.2f}"])
    same = found["same_predictions"]["fp32 with 8-bit activations"]
    dense = f" with `TRIT_DENSE={found['dense']}`" if "dense" in found else ""
    return (f"Images per second of SimpleBitNetCNN: `trit eval`{dense} and {found['peer']} "
            f"({same:,} of {found['test_images']:,} predictions agree).\n\n" +
            table(["threads", "batch", "trit", "PyTorch fp32", "ratio"], lines))


def training_step(data: dict) -> str:
    found = data["train_layer"]
    lines = []
    for r in found["rows"]:
        milliseconds = {name: sum(parts.values()) for name, parts in r["milliseconds"].items()}
        lines.append([shape_text(shape_of(r)), str(r["tokens"]), str(r["threads"]), f"{milliseconds['trit']:.1f}", f"{milliseconds['fp32']:.1f}",
                      f"{r['ratio_to_fp32']:.2f}"])
    return (f"RMSNorm and one layer, float32, forward and backward with all gradients, in milliseconds: trit and LibTorch "
            f"{found['torch']}. Geometric mean of the ratios {found['mean_ratio_to_fp32']:.2f}.\n\n" +
            table(["N x K", "tokens", "threads", "trit", "LibTorch", "ratio"], lines))


def layouts(data: dict) -> str:
    """Runs of bench_layouts: how good the automatic choice was."""
    runs = data["layouts"]
    lines = []
    for results in zip(*(run["results"] for run in runs)):
        ratios = sorted(r["ratio"] for r in results)
        chosen = sorted({r["chosen"] for r in results})
        lines.append([results[0]["size"], str(results[0]["threads"]), ", ".join(chosen), f"{ratios[len(ratios) // 2]:.2f}", f"{ratios[0]:.2f}"])
    return (f"Decoding, one token, {runs[0]['backend']}: speed of the layout that is chosen automatically / speed of the faster one, "
            f"{len(runs)} runs.\n\n" + table(["weights", "threads", "chosen", "median", "minimum"], lines))


def training(data: dict) -> str:
    found = data["train"]
    lines = [[name, f"{seconds:.2f}"] for name, seconds in found["median_seconds"].items()]
    return (f"Seconds of a training epoch of {found['train_images']:,} images on {threads_text(found['machine']['threads'])}, medians of "
            f"three; ternary over the faster Python program: {found['ratios']['ternary / best python']:.2f}.\n\n" +
            table(["program", "seconds"], lines))


def files(data: dict) -> str:
    found = data["io"]
    load, imported, packed, converted = found["load"], found["import"], found["pack"], found["convert"]
    lines = [[f"`trit info` of {one['file_bytes'] / 1e9:.1f} GB, {name}", f"{one['ms']:.1f} ms, {one['peak_mb']:.0f} MB resident",
              "<= 50 ms, <= 32 MB"] for name, one in found["info"].items()]
    lines.append([f"{imported['weights'] / 1e6:.0f} million weights of transformers to the stored form, one thread",
                  f"{imported['mb_per_second']:.0f} MB/s of input", ">= 500 MB/s"])
    for name, one in converted["to"].items():
        lines.append([f"{converted['input_bytes'] / 1e9:.2f} GB to {name}", f"{one['mb_per_second']:.0f} MB/s, {one['peak_mb']:.0f} MB resident",
                      f">= {converted['bar_mb_per_second']:.0f} MB/s (half of what `dd` copies), <= {converted['bar_peak_mb']:.0f} MB"])
    lines.append([f"`trit pack` of {packed['input_bytes'] / 2e9:.1f} billion bf16 weights",
                  f"{packed['mb_per_second']:.0f} MB/s (`dd` copies {packed['dd_mb_per_second']:.0f}), {packed['peak_mb']:.0f} MB resident",
                  f"<= {packed['bar_peak_mb']:.0f} MB"])
    lines.append([f"a packed model of {load['file_bytes'] / 1e6:.0f} MB, from its file to its first output",
                  f"{load['ms']:.0f} ms, {load['ratio_to_cat']:.2f} times `cat`; {load['peak_mb']:.0f} MB resident", "<= 2.0 times"])
    return ("`bench/bench_io.py`: files of 0.1 to 2.7 GB with random weights, interleaved with `cat` and `dd` on the same bytes.\n\n" +
            table(["what", "measured", "goal"], lines))


def hybrid(data: dict) -> str:
    """Of `bench_linear --hybrid`, or of an earlier program that timed the tile alone as well."""
    found = data["hybrid"]
    if isinstance(found, list):
        products = [dict(zip(("out_features", "in_features"), map(int, r["shape"].split("x")))) | r for r in found]
        alone = ""
    else:
        products = found["products"]
        alone = f" The hybrid tile alone, from L1: {found['tile_of_peak']:.2f}."
    lines = [[shape_text(shape_of(r)), str(r["tokens"]), f"{r['tiles_of_peak']:.2f}", f"{r['hybrid_of_peak']:.2f}",
              f"{r['hybrid_of_peak'] / r['tiles_of_peak'] if 'gain' not in r else r['gain']:.2f}"] for r in products]
    return (f"Shares of the `vpdpbusd` peak, one thread.{alone}\n\n" +
            table(["N x K", "M", "product tiles", "hybrid", "hybrid / product tiles"], lines))


def fuzzing(data: dict) -> str:
    lines = [[name, f"{one['executions']:,}", f"{one['seconds']:.0f}", f"{one['executions_per_second']:,}", f"{one['peak_mb']:,} MB"]
             for name, one in data["fuzz"].items()]
    return ("`make fuzz`: executions of each reader's fuzz target without a finding.\n\n" +
            table(["target", "executions", "seconds", "a second", "resident at most"], lines))


TABLES = {"Limits of the machine": limits, "Products": product, "Many threads": scaling, "Small layers": product_cnn,
          "Beside oneDNN": peers, "Beside llama.cpp and bitnet.cpp": external_peers,
          "Group scales": group_products, "Group scales beside ggml": group_peers, "Row kernels": rows,
          "The choice of a layout": layouts, "A whole network": evaluation,
          "A layer's training step on a CPU": training_step, "A training epoch": training, "Files": files, "Hybrid kernel": hybrid, "Fuzzing": fuzzing}
