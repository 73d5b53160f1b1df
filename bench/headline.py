# SPDX-License-Identifier: MIT
"""The few figures that README.md shows, as tables for tables.py and as bars for plot_speed.py.

LOAD is a function that returns the JSON of bench/results/NAME.json.
"""
import statistics
import typing

from markdown import mean, shape_of, table

XEON_AMX = "intel-r-xeon-r-processor-family-6-model-167-2-cores"
XEON = "intel-xeon-avx-512-vnni-2-cores"  # without AMX, beside every peer
H200 = "nvidia-h200"
SHAPE = (4096, 4096)
ONEDNN = {"int8": "oneDNN int8", "bf16": "oneDNN bf16"}
EXTERNAL = {"TQ2_0": "llama.cpp TQ2_0", "I2_S, tinyBLAS": "bitnet.cpp I2_S"}  # what bitnet.cpp calls since July 2026
CUBLASLT = {"float8": "cuBLASLt fp8", "int8": "cuBLASLt int8", "bfloat16": "cuBLASLt bf16"}
Load = typing.Callable[[str], dict]


def external_figures(figures: dict[str, float]) -> dict[str, float]:
    """Peer -> figure, by the names that README shows."""
    return {label: figures[name] for name, label in EXTERNAL.items() if name in figures}


class Panel(typing.NamedTuple):
    title: str
    times: dict[str, float]  # peer -> its time / trit's time, geometric mean over layer shapes


def panels(load: Load) -> list[Panel]:
    """Without the launches of trit that overlap (programmatic dependent launch), which are faster still."""
    xeon, gpu = load(XEON), load(H200)

    def cpu(tokens: int) -> dict[str, float]:
        times = external_figures({m["peer"]: m["ratio"] for m in xeon["external_peers"]["means"]
                                  if (m["backend"], m["threads"], m["tokens"]) == ("avx512_vnni", 1, tokens)})
        # Without AMX oneDNN's bf16 is emulated, and slower than its fp32.
        return times | {f"oneDNN {m['peer']}": m["ratio_to_product"] for m in xeon["peers"]["means"]
                        if (m["threads"], m["tokens"]) == (1, tokens) and m["peer"] != "bf16"}

    def cuda(tokens: int) -> dict[str, float]:
        times = {"humming": next(m["ratio_to_trit"] for m in gpu["humming"]["means"] if m["tokens"] == tokens)}
        us = [product["microseconds"] for product in gpu["products"] if product["tokens"] == tokens]
        return times | {label: mean(u[name] / u["trit"] for u in us) for name, label in CUBLASLT.items()}

    return [Panel("Xeon with AVX-512, 1 core, 1 token", cpu(1)), Panel("Xeon with AVX-512, 1 core, 128 tokens", cpu(128)),
            Panel("NVIDIA H200, 1 token", cuda(1)), Panel("NVIDIA H200, 4,096 tokens", cuda(4096))]


def time_text(microseconds: float, longest: float = 0) -> str:
    """In milliseconds if this time, or the longest one of its row, is at least 1 ms; otherwise in microseconds."""
    if max(microseconds, longest) < 1000:
        return f"{microseconds:.{1 if microseconds < 100 else 0}f} us"
    ms = microseconds / 1000
    return f"{ms:.{3 if ms < 1 else 2 if ms < 10 else 1}f} ms"


def on_xeon(load: Load, tokens: int) -> tuple[float, dict[str, float]]:
    """One product of SHAPE on a Xeon core: trit's time and its peers', in us."""
    one = next(r for r in load(XEON_AMX)["peers"]["results"] if (*shape_of(r), r["threads"], r["tokens"]) == (*SHAPE, 1, tokens))
    return one["product_microseconds"], {ONEDNN[p["name"]]: p["microseconds"] for p in one["peers"] if p["name"] in ONEDNN}


def on_h200(load: Load, tokens: int) -> dict[str, float]:
    """One product of SHAPE: library -> us, by the names of the JSON."""
    return next(p for p in load(H200)["products"] if (*shape_of(p), p["tokens"]) == (*SHAPE, tokens))["microseconds"]


def speed(load: Load) -> str:
    """Absolute times of one layer, and the peers' in the same run."""
    rows = []

    def add(where: str, tokens: int, trit: float, peers: dict[str, float]) -> None:
        longest = max(trit, *peers.values())
        rows.append([where, f"{tokens:,}", time_text(trit, longest),
                     ", ".join(f"{name} {time_text(us, longest)}" for name, us in peers.items())])

    for tokens in (1, 128):
        add("Xeon with AMX, 1 core", tokens, *on_xeon(load, tokens))
    for where, backend in (("Xeon with AVX-512, 1 core", "avx512_vnni"), ("the same, trit limited to AVX2", "avx2")):
        for tokens in (1, 128):
            one = next(r for r in load(XEON)["external_peers"]["results"]
                       if (*shape_of(r), r["threads"], r["tokens"], r["backend"]) == (*SHAPE, 1, tokens, backend))
            add(where, tokens, one["microseconds"], external_figures({p["name"]: p["microseconds"] for p in one["peers"]}))
    for tokens in (1, 4096):
        one = on_h200(load, tokens)
        add("NVIDIA H200", tokens, one["trit"], {label: one[name] for name, label in CUBLASLT.items() if name in one})
    return table(["one layer, 4096 x 4096", "tokens", "trit", "other libraries, in the same run"], rows)


def one_token_xeon(load: Load) -> str:
    trit, peers = on_xeon(load, 1)
    best = min(peers, key=lambda name: peers[name])
    return f"{time_text(trit, peers[best])} on one Xeon core ({best}: {time_text(peers[best])})"


def one_token_h200(load: Load) -> str:
    one = on_h200(load, 1)
    best = min((name for name in CUBLASLT if name in one), key=lambda name: one[name])
    return f"{time_text(one['trit'], one[best])} on an H200 ({CUBLASLT[best]}: {time_text(one[best])})"


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
    return f"{sizes['ternary'] / 1000:,.0f} KB, in fp32 {sizes['fp32'] / 1000:,.0f} KB"


def layer_step(load: Load) -> str:
    """A layer's training step over the compiled bfloat16 layer's, 16,384 tokens."""
    return f"{mean(r['step_ratio'] for r in load('train_layer_h200')['rows'] if r['candidate'] == 'trit, exact backward' and r['tokens'] == 16384):.2f}"


def programmatic(load: Load) -> str:
    return time_text(on_h200(load, 1)["trit_programmatic"])


def evaluated(load: Load) -> str:
    return f"{load(H200)['evaluation']['cuda']['images_per_second'] / 1e6:.1f} million"


TABLES = {"speed": speed, "accuracy": accuracy}
FIGURES = {"one_token_xeon": one_token_xeon, "one_token_h200": one_token_h200, "file_sizes": file_sizes, "layer_step": layer_step,
           "programmatic": programmatic, "evaluated": evaluated}
