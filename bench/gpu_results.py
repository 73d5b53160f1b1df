#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One file of results from what scripts/gpu_check.sh has measured.

    gpu_results.py FOLDER RESULT.json [--quick]

FOLDER holds kernels.json (bench_cuda), tuning.json (trit bench --tune) and, where there is LibTorch, calls.jsonl
(bench_torch_call), run/metrics.jsonl and training.seconds (train_cifar10), eval-cuda.json and eval-auto.json (trit eval),
and profile.json (gpu_profile.py).
"""
import argparse
import json
import pathlib
import statistics


def lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def training(folder: pathlib.Path) -> dict:
    epochs = lines(folder / "run" / "metrics.jsonl")
    begin, end = map(float, (folder / "training.seconds").read_text().split())
    return {"dataset": epochs[0]["dataset"], "precision": epochs[0]["precision"], "epochs": len(epochs),
            "test_accuracy": epochs[-1]["test_accuracy"],
            "seconds_of_all_epochs": round(sum(epoch["seconds"] for epoch in epochs), 3),
            "seconds_of_an_epoch_median": round(statistics.median(epoch["seconds"] for epoch in epochs), 4),
            # From the start of the program to its end: CUDA's start, the images, evaluations, checkpoints, the export.
            "seconds_of_the_program": round(end - begin, 2)}


def evaluation(folder: pathlib.Path) -> dict:
    found = {name: json.loads((folder / f"eval-{name}.json").read_text()) for name in ("cuda", "auto")}
    result = {name: {key: one[key] for key in ("backend", "accuracy", "images_per_second") if key in one} for name, one in found.items()}
    result["cuda_over_cpu"] = found["cuda"]["images_per_second"] / found["auto"]["images_per_second"]
    return result


def tuning(folder: pathlib.Path) -> dict:
    found = json.loads((folder / "tuning.json").read_text())
    ratios = [product["ratio"] for product in found["tuned"]]
    return {"mean_ratio": found["mean_ratio"], "largest_ratio": max(ratios), "points": len(ratios), "seconds": found["seconds"],
            "products": found["tuned"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    results = json.loads((args.folder / "kernels.json").read_text())
    if args.quick:
        results["quick"] = True
    results["tuning"] = tuning(args.folder)
    if (args.folder / "calls.jsonl").exists():
        results["layer_calls"] = lines(args.folder / "calls.jsonl")
    if (args.folder / "training.seconds").exists():
        results["training"] = training(args.folder)
        results["evaluation"] = evaluation(args.folder)
    if (args.folder / "profile.json").exists():
        results["profile"] = json.loads((args.folder / "profile.json").read_text())["profile"]
    args.result.write_text(json.dumps(results, indent=1) + "\n")
    shown = {key: value for key, value in results["tuning"].items() if key != "products"}
    print(args.result, json.dumps({"tuning": shown} | {key: results[key] for key in ("training", "evaluation") if key in results}))


if __name__ == "__main__":
    main()
