#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Training curves from metrics files: loss and accuracy over the epochs, one colour a run.

    plot_training.py METRICS.jsonl [METRICS.jsonl ...] [--output training.png] [--title TEXT]

The title names the data set that the files speak of. A value that is null (it was not finite) is a gap in its curve.
"""
import argparse
import json
import math
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)
from matplotlib.ticker import MaxNLocator  # noqa: E402

NEEDED = ("epoch", "train_loss", "train_accuracy", "test_accuracy")
DRAWN = (*NEEDED, "test_loss")


def read_metrics(path: pathlib.Path) -> list[dict]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        sys.exit(f"plot_training: {path}: {error.strerror}")
    epochs = []
    for number, line in enumerate(lines, 1):
        try:
            epoch = json.loads(line)
            missing = [key for key in NEEDED if key not in epoch]
        except (json.JSONDecodeError, TypeError):
            sys.exit(f"plot_training: {path}:{number}: not a JSON object")
        if missing:
            sys.exit(f"plot_training: {path}:{number}: has no {', '.join(missing)}")
        epochs.append(epoch | {key: math.nan for key in DRAWN if key in epoch and epoch[key] is None})
    if not epochs:
        sys.exit(f"plot_training: {path}: no epochs yet")
    return epochs


def label(epochs: list[dict]) -> str:
    last = epochs[-1]
    parts = [str(last[key]) for key in ("linear", "precision") if key in last]
    parts += [f"seed {last['seed']}"] if "seed" in last else []
    return ", ".join(parts) or "run"


def plot(runs: list[list[dict]], title: str, output: pathlib.Path) -> None:
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for index, epochs in enumerate(runs):
        colour = f"C{index}"
        x = [epoch["epoch"] for epoch in epochs]
        marker = "o" if len(x) == 1 else None
        name = label(epochs)
        best = max((epoch["test_accuracy"] for epoch in epochs if math.isfinite(epoch["test_accuracy"])), default=math.nan)
        loss.plot(x, [epoch["train_loss"] for epoch in epochs], colour, marker=marker, label=f"{name}: train")
        if all("test_loss" in epoch for epoch in epochs):
            loss.plot(x, [epoch["test_loss"] for epoch in epochs], colour, marker=marker, ls="--", label=f"{name}: test")
        accuracy.plot(x, [epoch["train_accuracy"] for epoch in epochs], colour, marker=marker, alpha=0.5,
                      label=f"{name}: train, augmented")
        accuracy.plot(x, [epoch["test_accuracy"] for epoch in epochs], colour, marker=marker, ls="--",
                      label=f"{name}: test, {epochs[-1]['test_accuracy']:.2f} % at the end, best {best:.2f} %")
    loss.set(xlabel="epoch", ylabel="cross entropy", title="loss")
    accuracy.set(xlabel="epoch", ylabel="accuracy, %", title="accuracy")
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(output, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, help="default: training.png beside the first metrics file")
    parser.add_argument("--title")
    args = parser.parse_args()
    runs = [read_metrics(path) for path in args.metrics]
    datasets = sorted({str(run[-1].get("dataset", "unknown data set")) for run in runs})
    title = args.title or f"SimpleBitNetCNN on {', '.join(datasets)}"
    output = args.output or args.metrics[0].parent / "training.png"
    plot(runs, title, output)


if __name__ == "__main__":
    main()
