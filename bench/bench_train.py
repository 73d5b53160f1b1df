#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Seconds per epoch: train_cifar10 against its fp32 twin and against the same network in eager Python PyTorch.

    bench_train.py --data DIR [--rounds 3] [--train-images 0] [--json FILE] [--program build/bin/train_cifar10]

The programs run in turn, one epoch each, `rounds` times (A B C D, A B C D, ...), so that a machine that slows down slows
all of them; times are medians over rounds. In every program the time of an epoch is that of its training steps with
their batches, without evaluation and start-up. The peer (peer_train.py) runs with each memory format and with the
loader that is fastest here (all are tried on a few images first). The ratio that counts is to the faster format.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import measuring

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOADERS = ("main", "thread", "workers")


def trained(args: argparse.Namespace, linear: str, images: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [args.program, "--dataset", "cifar10", "--data", args.data, "--epochs", 1, "--linear", linear,
                   "--train-images", images, "--batch-size", args.batch_size, "--out", folder]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return json.loads((pathlib.Path(folder) / "metrics.jsonl").read_text())


def peer(args: argparse.Namespace, memory_format: str, loader: str, images: int) -> dict:
    command = [sys.executable, ROOT / "bench" / "peer_train.py", "--data", args.data, "--train-images", images or 50000,
               "--batch-size", args.batch_size, "--memory-format", memory_format, "--loader", loader]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("TRIT_CIFAR10"), help="default: TRIT_CIFAR10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-images", type=int, default=0, help="0: all 50,000")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build" / "bin" / "train_cifar10")
    args = parser.parse_args()
    if not args.data:
        parser.error("--data or TRIT_CIFAR10 must name the folder of CIFAR-10")

    tried = {loader: peer(args, "channels_last", loader, 6400)["seconds"] for loader in LOADERS}
    loader = min(tried, key=tried.get)
    print(f"peer's loader: {loader} ({', '.join(f'{name} {seconds:.2f} s' for name, seconds in tried.items())} for "
          f"6400 images)", file=sys.stderr)
    runs = {
        "train_cifar10 ternary": lambda: trained(args, "ternary", args.train_images),
        "train_cifar10 fp32": lambda: trained(args, "fp32", args.train_images),
        "python channels_last": lambda: peer(args, "channels_last", loader, args.train_images),
        "python contiguous": lambda: peer(args, "contiguous", loader, args.train_images),
    }
    seconds = {name: [] for name in runs}
    for number in range(args.rounds):
        for name, run in runs.items():
            seconds[name].append(run()["seconds"])
            print(f"round {number + 1}  {name:22}  {seconds[name][-1]:7.2f} s", file=sys.stderr, flush=True)

    median = {name: statistics.median(values) for name, values in seconds.items()}
    ternary = median["train_cifar10 ternary"]
    ratios = {f"ternary / {name}": ternary / value for name, value in median.items() if name != "train_cifar10 ternary"}
    best_peer = min(median["python channels_last"], median["python contiguous"])
    ratios["ternary / best python"] = ternary / best_peer
    result = {"benchmark": "train", "dataset": "cifar10", "train_images": args.train_images or 50000,
              "batch_size": args.batch_size, "machine": measuring.machine(), "peer_loader": loader, "peer_loaders_seconds": tried,
              "seconds": seconds, "median_seconds": median, "ratios": ratios}
    text = json.dumps(result, indent=1)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
