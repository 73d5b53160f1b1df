# SPDX-License-Identifier: MIT
"""The few figures that README.md shows, as tables for tables.py and as bars for plot_speed.py.

LOAD is a function that returns the JSON of bench/results/NAME.json.
"""
import statistics
import typing

from markdown import mean, shape_of, table

XEON = "intel-r-xeon-r-processor-family-6-model-167-2-cores"  # beside oneDNN
XEON_PEERS = "intel-r-xeon-r-processor-family-6-model-207-2-cores"  # beside llama.cpp and bitnet.cpp
H200 = "nvidia-h200"
SHAPE = (4096, 4096)
ONEDNN = {"int8": "oneDNN int8", "bf16": "oneDNN bf16"}
EXTERNAL = {"TQ2_0": "llama.cpp TQ2_0", "I2_S kernels": "bitnet.cpp I2_S"}
EXTERNAL_NEW = {"I2_S, tinyBLAS": "bitnet.cpp I2_S"}  # what bitnet.cpp calls since July 2026, where it was measured
CUBLASLT = {"float8": "cuBLASLt fp8", "int8": "cuBLASLt int8", "bfloat16": "cuBLASLt bf16"}
Load = typing.Callable[[str], dict]


def external_figures(figures: dict[str, float]) -> dict[str, float]:
    """Peer -> figure, by the names that README shows."""
    return {label: figures[name] for names in (EXTERNAL, EXTERNAL_NEW) for name, label in names.items() if name in figures}


class Panel(typing.NamedTuple):
    title: str
    times: dict[str, float]  # peer -> its time / trit's time, geometric mean over layer shapes


def panels(load: Load) -> list[Panel]:
    """Without the launches of trit that overlap (programmatic dependent launch), which are faster still."""
    xeon, external, gpu = load(XEON), load(XEON_PEERS), load(H200)

    def cpu(tokens: int) -> dict[str, float]:
        times = external_figures({m["peer"]: m["ratio"] for m in external["external_peers"]["means"]
                                  if (m["backend"], m["threads"], m["tokens"]) == ("amx", 1, tokens)})
        times |= {ONEDNN[m["peer"]]: m["ratio_to_product"] for m in xeon["peers"]["means"]
                  if (m["threads"], m["tokens"]) == (1, tokens) and m["peer"] in ONEDNN}
        return times

    def cuda(tokens: int) -> dict[str, float]:
        times = {"humming": next(m["ratio_to_trit"] for m in gpu["humming"]["means"] if m["tokens"] == tokens)}
        us = [product["microseconds"] for product in gpu["products"] if product["tokens"] == tokens]
        return times | {label: mean(u[name] / u["trit"] for u in us) for name, label in CUBLASLT.items()}

    return [Panel("Xeon with AMX, 1 core, 1 token", cpu(1)), Panel("Xeon with AMX, 1 core, 128 tokens", cpu(128)),
            Panel("NVIDIA H200, 1 token", cuda(1)), Panel("NVIDIA H200, 4,096 tokens", cuda(4096))]


def time_text(microseconds: float) -> str:
    if microseconds < 100:
        return f"{microseconds:.1f} us"
    return f"{microseconds:.0f} us" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"


def speed(load: Load) -> str:
    """Absolute times of one layer, and the peers' in the same run."""
    xeon, external, gpu = load(XEON), load(XEON_PEERS), load(H200)
    rows = []

    def add(where: str, tokens: int, trit: float, peers: dict[str, float]) -> None:
        rows.append([where, f"{tokens:,}", time_text(trit), ", ".join(f"{name} {time_text(us)}" for name, us in peers.items())])

    for tokens in (1, 128):
        one = next(r for r in xeon["peers"]["results"] if (*shape_of(r), r["threads"], r["tokens"]) == (*SHAPE, 1, tokens))
        add("Xeon with AMX, 1 core", tokens, one["product_microseconds"],
            {ONEDNN[p["name"]]: p["microseconds"] for p in one["peers"] if p["name"] in ONEDNN})
    for tokens in (1, 128):
        one = next(r for r in external["external_peers"]["results"]
                   if (*shape_of(r), r["threads"], r["tokens"], r["backend"]) == (*SHAPE, 1, tokens, "avx2"))
        add("a similar Xeon, trit on AVX2 alone", tokens, one["microseconds"],
            external_figures({p["name"]: p["microseconds"] for p in one["peers"]}))
    for tokens in (1, 4096):
        one = next(p for p in gpu["products"] if (*shape_of(p), p["tokens"]) == (*SHAPE, tokens))["microseconds"]
        add("NVIDIA H200", tokens, one["trit"], {label: one[name] for name, label in CUBLASLT.items() if name in one})
    return table(["one layer, 4096 x 4096", "tokens", "trit", "beside it, in the same run"], rows)


def accuracy(load: Load) -> str:
    """SimpleBitNetCNN with ternary and with float linear layers."""
    data = load("accuracy_xeon_avx512")
    seeds = sorted({run["seed"] for run in data["runs"]})
    rows = []
    for linear in ("ternary", "fp32"):
        found = {run["seed"]: run["test_accuracy"] for run in data["runs"] if run["linear"] == linear}
        rows.append([linear] + [f"{found[seed]:.2f} %" for seed in seeds] +
                    [f"{statistics.fmean(found.values()):.2f} %", f"{data['file_bytes'][linear] / 1000:,.0f} KB"])
    return table(["linear layers"] + [f"seed {seed}" for seed in seeds] + ["mean", "model file"], rows)


def file_sizes(load: Load) -> str:
    sizes = load("accuracy_xeon_avx512")["file_bytes"]
    return f"{sizes['ternary'] / 1000:,.0f} KB instead of {sizes['fp32'] / 1000:,.0f} KB"


def layer_step(load: Load) -> str:
    """A layer's training step over the compiled bfloat16 layer's, 16,384 tokens."""
    return f"{mean(r['step_ratio'] for r in load('train_layer_h200')['rows'] if r['candidate'] == 'trit, exact backward' and r['tokens'] == 16384):.2f}"


def programmatic(load: Load) -> str:
    one = next(p for p in load(H200)["products"] if (*shape_of(p), p["tokens"]) == (*SHAPE, 1))
    return time_text(one["microseconds"]["trit_programmatic"])


TABLES = {"speed": speed, "accuracy": accuracy}
FIGURES = {"file_sizes": file_sizes, "layer_step": layer_step, "programmatic": programmatic}
