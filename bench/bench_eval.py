#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images per second: `trit eval` against the same network in fp32 in eager PyTorch, on CPU, in turn.

    bench_eval.py MODEL --data DIR [--rounds 3] [--threads 1,2] [--json FILE] [--program build/bin/trit]

MODEL is a file that train_cifar10 has exported. The peer has the file's weights as floats, torch.inference_mode, the
same number of threads and the memory format (contiguous or channels_last) that is faster at that batch size. On both
sides only the network is timed; images are normalised before. Predictions on all test images are compared with the
peer's, and with those of its network with activations rounded to 8 bits as in the file's layers: there only the rounding
of the convolutions may differ.
"""
import argparse
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import measuring
import numpy as np
import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
IMAGES = {128: 2560, 1: 500}  # batch size -> images of a timed run


def read_model(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file as floats; docs/format.md has the layout."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    graph = json.loads(header.pop("__metadata__")["trit.model"])
    raw = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        kind = np.uint8 if entry["dtype"] == "U8" else np.float32
        raw[name] = np.frombuffer(data[8 + length + begin:8 + length + end], kind).reshape(entry["shape"])
    tensors = {}
    for name, value in raw.items():
        if value.dtype == np.uint8:
            fields = value[:, :, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
            t = np.array([0, 1, 0, -1], np.float32)[fields].reshape(len(value), -1)
            value = t * raw[name + "_scale"].reshape(-1, 1)
        tensors[name] = torch.from_numpy(np.array(value))
    tensors["mean"], tensors["std"] = (torch.tensor(graph["input"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return tensors


def round_activations(x: torch.Tensor) -> torch.Tensor:
    scale = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-5)
    return (x * scale).round_() / scale


class Network(torch.nn.Module):
    def __init__(self, tensors: dict[str, torch.Tensor], round_to_8_bits: bool = False):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(32, 64, 3, padding=1)
        self.norm1, self.norm2 = torch.nn.RMSNorm(4096, eps=1e-6), torch.nn.RMSNorm(512, eps=1e-6)
        self.fc1, self.fc2 = torch.nn.Linear(4096, 512, bias=False), torch.nn.Linear(512, 10, bias=False)
        names = {"norm1.weight": "fc1.norm.weight", "norm2.weight": "fc2.norm.weight"}
        self.load_state_dict({key: tensors[names.get(key, key)] for key in self.state_dict()})
        self.round = round_activations if round_to_8_bits else lambda x: x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        x = F.relu(self.fc1(self.round(self.norm1(x))))
        return self.fc2(self.round(self.norm2(x)))


def test_images(folder: pathlib.Path) -> torch.Tensor:
    file = next(folder.rglob("test_batch.bin"), None)
    if file is None:
        raise SystemExit(f"bench_eval: no test_batch.bin below {folder}")
    records = np.fromfile(file, np.uint8).reshape(-1, 3073)
    return torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())


def images_per_second(network: Network, images: torch.Tensor, batch: int, memory_format) -> float:
    seconds = 0.0
    network.to(memory_format=memory_format)
    with torch.inference_mode():
        network(images[:batch].contiguous(memory_format=memory_format))
        for first in range(0, len(images), batch):
            x = images[first:first + batch].contiguous(memory_format=memory_format)
            start = time.perf_counter()
            network(x)
            seconds += time.perf_counter() - start
    return len(images) / seconds


def predictions(network: Network, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([network(part).argmax(1) for part in images.split(500)]).numpy()


def trit_eval(args: argparse.Namespace, batch: int, threads: int, predicted: pathlib.Path | None) -> dict:
    command = [args.program, "eval", args.model, "--dataset", "cifar10", "--data", args.data, "--batch", batch, "--threads",
               threads, "--json"]
    command += ["--predictions", predicted] if predicted else ["--limit", IMAGES[batch]]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(output.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default=os.environ.get("TRIT_CIFAR10"), help="default: TRIT_CIFAR10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default=f"1,{len(os.sched_getaffinity(0))}")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build" / "bin" / "trit")
    parser.add_argument("--json", type=pathlib.Path, help='file to add the object "eval" to')
    args = parser.parse_args()
    if not args.data:
        parser.error("--data or TRIT_CIFAR10 must name the folder of CIFAR-10")
    tensors = read_model(args.model)
    images = (test_images(args.data).float() / 255 - tensors["mean"]) / tensors["std"]
    network = Network(tensors).eval()

    with tempfile.TemporaryDirectory() as folder:
        predicted = pathlib.Path(folder) / "predictions"
        accuracy = trit_eval(args, 128, measuring.machine()["cores"], predicted)["accuracy"]
        mine = np.loadtxt(predicted, dtype=int)
    same = {"fp32": int((mine == predictions(network, images)).sum()),
            "fp32 with 8-bit activations": int((mine == predictions(Network(tensors, True).eval(), images)).sum())}
    print(f"predictions on {len(images)} images that equal the peer's: {same}")
    if same["fp32 with 8-bit activations"] < 0.999 * len(images):
        raise SystemExit("bench_eval: the two networks are not the same")

    results = []
    for threads in sorted({int(count) for count in args.threads.split(",")}):
        torch.set_num_threads(threads)
        for batch, count in IMAGES.items():
            rounds = []
            for _ in range(args.rounds):
                rates = {"trit": trit_eval(args, batch, threads, None)["images_per_second"]}
                for name, memory_format in FORMATS.items():
                    rates[name] = images_per_second(network, images[:count], batch, memory_format)
                rounds.append(rates)
            median = {name: statistics.median(rates[name] for rates in rounds) for name in rounds[0]}
            best = max(FORMATS, key=median.get)
            ratio = statistics.median(rates["trit"] / rates[best] for rates in rounds)
            results.append({"threads": threads, "batch": batch, "images": count, "images_per_second": median,
                            "peer_memory_format": best, "ratio": ratio})
            print(f"{threads} thread(s), batch {batch}: trit {median['trit']:.0f} images/s, torch {median[best]:.0f} ({best}): "
                  f"{ratio:.2f}x", flush=True)
    if args.json:
        dense = {"dense": os.environ["TRIT_DENSE"]} if "TRIT_DENSE" in os.environ else {}
        measuring.store(args.json, "eval", {**dense, "peer": f"torch {torch.__version__}, eager, fp32", "accuracy": accuracy,
                                            "same_predictions": same, "test_images": len(images), "results": results})


if __name__ == "__main__":
    sys.exit(main())
