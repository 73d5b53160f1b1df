# SPDX-License-Identifier: MIT
"""Tables of a GPU's results: what scripts/gpu_check.sh, bench_humming.py and bench_train_layer.py measured.

Each function takes the JSON of one file and raises KeyError where the file lacks what the table shows.
"""
import statistics

from markdown import mean, shape_of, shape_text, table

PEERS = {"bfloat16": "cuBLASLt bf16", "int8": "cuBLASLt int8", "float8": "cuBLASLt fp8"}
LAYER_CANDIDATES = ["trit, exact backward", "trit, dX in int8", "trit, dX and dW in int8", "torchao bitnet_training, compiled",
                    "torchao int8_mixed_precision_training, compiled", "torchao float8 training, compiled",
                    "fake-quantised BitLinear, compiled", "Linear bf16 without a norm", "RMSNorm + Linear bf16, compiled"]


def teraops(product: dict, microseconds: float) -> float:
    return 2 * product["tokens"] * product["out_features"] * product["in_features"] / microseconds / 1e6


def best_peer(product: dict) -> float:
    return min(product["microseconds"][name] for name in PEERS if name in product["microseconds"])


def ratio_text(ratios: list[float]) -> str:
    return f"{mean(ratios):.2f} ({min(ratios):.2f})"


def ratios(data: dict) -> str:
    lines = []
    for tokens in dict.fromkeys(product["tokens"] for product in data["products"]):
        chosen = [product for product in data["products"] if product["tokens"] == tokens]
        us = [product["microseconds"] for product in chosen]
        lines.append([f"{tokens:,}",
                      ratio_text([u["bfloat16"] / u["trit"] for u in us]),
                      ratio_text([u["bfloat16"] / u["trit_programmatic"] for u in us]),
                      ratio_text([best_peer(p) / u["trit"] for p, u in zip(chosen, us)]),
                      ratio_text([best_peer(p) / u["trit_programmatic"] for p, u in zip(chosen, us)])])
    shapes = ", ".join(dict.fromkeys(shape_text(shape_of(product)) for product in data["products"]))
    return (f"Time of cuBLASLt {data['cublaslt']} / time of trit: geometric mean over {shapes} and, in brackets, the smallest ratio. "
            "*Programmatic* means that trit is launched with programmatic dependent launch, as the layers of a model are; cuBLASLt has "
            f"ordinary launches in all columns.\n\nWhich run a row is from: {data['products_note']}.\n\n" +
            table(["M", "bf16 / trit", "bf16 / trit, programmatic", "best of bf16, int8, fp8 / trit", "best / trit, programmatic"], lines))


def humming_ratios(found: dict) -> str:
    shapes = ", ".join(dict.fromkeys(shape_text(shape_of(r)) for r in found["results"]))
    lines = [[f"{m['tokens']:,}"] + [f"{m[name]:.2f} ({m['least_' + name]:.2f})" for name in ("ratio_to_trit", "ratio_to_trit_programmatic")]
             for m in found["means"]]
    scales = f"a float16 scale for each {found['group']} inputs" if found.get("group") else "one weight scale"
    return (f"Time of humming-kernels {found['humming_kernels']} / time of trit, the same weights and int8 activations, {scales}: geometric "
            f"mean over {shapes} and, in brackets, the smallest ratio.\n\n" +
            table(["M", "humming / trit", "humming / trit, programmatic"], lines))


def humming(data: dict) -> str:
    found = [data["humming"], *([data["humming_groups"]] if "humming_groups" in data else [])]
    return "\n\n".join(map(humming_ratios, found))


def products(data: dict) -> str:
    lines = []
    for product in data["products"]:
        us = product["microseconds"]
        if product["tokens"] in (1, 16, 64, 256, 1024, 4096):
            lines.append([shape_text(shape_of(product)), f"{product['tokens']:,}"] +
                         [f"{us[name]:.1f}" if name in us else "-"
                          for name in ("bfloat16", "int8", "float8", "trit", "trit_programmatic", "trit_layer_programmatic")] +
                         [f"{teraops(product, us['trit_programmatic']):.0f}"])
    return ("Microseconds. *Layer* is norm_quant of bf16 activations and the product, both launched programmatically.\n\n" +
            table(["N x K", "M", "bf16", "int8", "fp8", "trit", "programmatic", "layer", "TOP/s, programmatic"], lines))


def rows(data: dict) -> str:
    found = data["rows"]
    if isinstance(found, list):  # of a layer's training step
        raise KeyError("row kernels")
    read = data["memory_read_gigabytes_per_second"]
    return table(["kernel", "measured", "share of the read bandwidth"], [
        ["reading 4 GiB", f"{read:.0f} GB/s", "1"],
        [f"norm_quant, bf16, {found['norm_quant_tokens']:,} rows of {found['inputs']}", f"{found['norm_quant_gigabytes_per_second']:.0f} GB/s",
         f"{found['norm_quant_share_of_read_bandwidth']:.2f}"],
        ["norm_quant, one row", f"{found['norm_quant_one_token_microseconds']:.1f} us", ""],
        [f"absmean and ternarize_pack of {found['inputs']} x {found['inputs']} fp32", f"{found['ternarize_pack_gigabytes_per_second']:.0f} GB/s",
         f"{found['ternarize_pack_share_of_read_bandwidth']:.2f}"]])


def tuning(data: dict) -> str:
    found = data["tuning"]
    lines = []
    for tokens in dict.fromkeys(product["tokens"] for product in found["products"]):
        chosen = [product for product in found["products"] if product["tokens"] == tokens]
        of_table = [product["ratio"] for product in chosen]
        worst = chosen[of_table.index(max(of_table))]
        lines.append([f"{tokens:,}", f"{mean(of_table):.3f}", f"{max(of_table):.2f}"] +
                     ([shape_text(shape_of(worst)), worst["table_plan"], worst["best_plan"]] if max(of_table) > 1 else ["", "", ""]))
    text = f"Time of the default plan / time of the fastest plan; {found['points']} points, {found['seconds']:.0f} s.\n\n"
    text += table(["M", "geometric mean", "largest", "at", "default plan", "fastest plan"], lines)
    if "tuning_other_shapes" in data:
        other = data["tuning_other_shapes"]
        worst = max(other["products"], key=lambda product: product["ratio"])
        text += (f"\n\nOther shapes, `{other['command']}`: {other['points']} points, mean {other['mean_ratio']:.3f}, largest "
                 f"{other['largest_ratio']:.2f} ({shape_text(shape_of(worst))}, {worst['tokens']} tokens: {worst['best_plan']} is faster than "
                 f"{worst['table_plan']}).")
    return text


def profile(data: dict) -> str:
    lines = []
    for one in data["profile"]:
        is_product = one["kernel"].startswith(("decode", "gemm"))
        lines.append([one["kernel"].removesuffix("_kernel"),
                      f"{one['shape'].replace('x', ' x ')}, M = {one['tokens']}" if is_product else "8192 inputs", f"{one['microseconds']:.1f}"] +
                     [f"{one[share]:.0f}" for share in ("memory", "cache", "sm", "issue")])
    return ("Nsight Compute (`scripts/gpu_profile.py`): one launch with cold caches, in per cent of what the unit can do at that clock. "
            "The busiest pipe is the tensor cores' in the GEMMs. Times are longer than above, since nothing runs before the launch and "
            "nothing overlaps it.\n\n" + table(["kernel", "N x K", "us", "memory %", "L2 %", "busiest pipe %", "issue slots %"], lines))


def layer_step(data: dict) -> str:
    if isinstance(data["rows"], dict):  # of the row kernels
        raise KeyError("a layer's step")
    shapes = list(dict.fromkeys(shape_of(row) for row in data["rows"]))
    found = {(row["candidate"], row["tokens"], shape_of(row)): row for row in data["rows"]}
    lines = []
    for tokens in sorted({row["tokens"] for row in data["rows"]}, reverse=True):
        for name in LAYER_CANDIDATES:
            chosen = [found[name, tokens, shape] for shape in shapes if (name, tokens, shape) in found]
            if len(chosen) == len(shapes):
                label = name + (" *" if chosen[0].get("earlier_run") else "")
                lines.append([f"{tokens:,}", label] + [f"{row['step_ratio']:.2f} ({row['step_us']:,.0f})" for row in chosen] +
                             [f"{mean(row['step_ratio'] for row in chosen):.2f}"])
    return ("`bench/cuda/bench_train_layer.py`: RMSNorm and one layer, forward and backward with all gradients. Time as a multiple of "
            "`torch.compile`d RMSNorm + Linear in bfloat16 in the same run and, in brackets, microseconds. trit's outputs and gradients are "
            "checked against the formulas. *: from an earlier run, over the baseline of that run.\n\n" +
            table(["tokens", "candidate"] + [shape_text(shape) for shape in shapes] + ["geometric mean"], lines))


def training_runs(data: dict) -> str:
    groups: dict[tuple, list[dict]] = {}
    for run in data["runs"]:
        groups.setdefault((run["linear"], run["precision"]), []).append(run)
    lines = []
    for (linear, precision), runs in groups.items():
        accuracies, seconds = [run["test_accuracy"] for run in runs], [run["seconds_of_all_epochs"] for run in runs]
        lines.append([linear, precision, str(len(runs)), f"{statistics.fmean(accuracies):.2f} ({min(accuracies):.2f} to {max(accuracies):.2f})",
                      f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
                      f"{statistics.median(run['seconds_of_an_epoch_median'] for run in runs):.3f}"])
    return (f"`{data['command']}`, {data['dataset']}: test accuracy in per cent after 20 epochs, and seconds of training with evaluation and "
            "checkpoints left out. The longest run is the first one, which sets CUDA up.\n\n" +
            table(["linear layers", "precision", "seeds", "mean (lowest to highest)", "seconds, median (range)", "seconds an epoch"], lines))


def job(data: dict) -> str:
    found = data["training"]
    return (f"The training job of `scripts/gpu_check.sh` ({found['dataset']}, {found['precision']}, {found['epochs']} epochs): "
            f"{found['test_accuracy']:.2f} % test accuracy; {found['seconds_of_all_epochs']:.1f} s of training in "
            f"{found['seconds_of_the_program']:.1f} s of the whole program.")


def layer_calls(data: dict) -> str:
    lines = [[r["mode"], f"{r['bit_linear_us']:.1f}", f"{r['linear_us']:.1f}", f"{r['ratio']:.2f}"] for r in data["layer_calls"]]
    first = data["layer_calls"][0]
    return (f"`bench_torch_call`: host time of an eager call, {first['M']} token, {first['N']} x {first['K']}, {first['dtype']}, microseconds.\n\n" +
            table(["mode", "BitLinear", "torch::nn::Linear", "ratio"], lines))


def evaluation(data: dict) -> str:
    found = data["evaluation"]
    two = found["two_cpus"]
    lines = [["GPU", f"{found['cuda']['images_per_second']:,.0f}"], ["all CPUs of the machine, AMX", f"{found['auto']['images_per_second']:,.0f}"],
             ["two of its CPUs, AMX, in turn with the GPU", f"{statistics.median(two['images_per_second']):,.0f}"],
             ["the GPU in those turns", f"{statistics.median(two['cuda_images_per_second_in_turn']):,.0f}"]]
    return ("`trit eval` of SimpleBitNetCNN on 10,000 test images of CIFAR-10, images per second; the CPUs with "
            "`TRIT_DENSE=onednn-bf16-pairs`.\n\n" + table(["where", "images/s"], lines))


TABLES = {"Beside cuBLASLt": ratios, "Beside humming": humming, "Row kernels": rows, "Products": products, "A layer's training step": layer_step,
          "Default plans beside the autotuner's": tuning, "Counters": profile, "A training job": job, "Training runs": training_runs,
          "Host time of a layer": layer_calls, "A whole network": evaluation}
