#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The peer of train_cifar10: the same network trained the usual way, in eager Python PyTorch.

    peer_train.py --data DIR [--epochs 1] [--memory-format channels_last|contiguous] [--loader main|thread|workers]

BitLinear is the published recipe (fake quantisation with a straight-through estimator, F.linear on floats). The
rest is written as a user who cares for speed would: images stay uint8 in memory, crop and flip are vectorised over
the batch, normalisation is one pass, AdamW is fused. Its loaders:
    main     batches are made between two steps
    thread   one thread makes them ahead (tensor operations release the interpreter's lock)
    workers  torch.utils.data.DataLoader with a worker process that is handed whole batches of indexes
One JSON object an epoch goes to stdout, with the keys of train_cifar10's metrics.
"""
import argparse
import json
import pathlib
import queue
import threading
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)


def activation_quant(x: torch.Tensor) -> torch.Tensor:
    scale = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-5)
    return (x * scale).round_().clamp_(-128, 127) / scale


def weight_quant(w: torch.Tensor) -> torch.Tensor:
    scale = 1.0 / w.abs().mean().clamp_(min=1e-5)
    return (w * scale).round_().clamp_(-1, 1) / scale


class BitLinear(nn.Linear):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)
        self.norm = nn.RMSNorm(in_features, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, w = self.norm(x), self.weight
        x = x + (activation_quant(x) - x).detach()
        w = w + (weight_quant(w) - w).detach()
        return F.linear(x, w)


class NormLinear(nn.Linear):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)
        self.norm = nn.RMSNorm(in_features, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(x))


class SimpleBitNetCNN(nn.Module):
    def __init__(self, linear: type):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = linear(64 * 8 * 8, 512)
        self.fc2 = linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x), inplace=True), 2)
        x = F.max_pool2d(F.relu(self.conv2(x), inplace=True), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1)), inplace=True))


def load(folder: pathlib.Path, files: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    records = np.concatenate([np.fromfile(folder / name, dtype=np.uint8).reshape(-1, 3073) for name in files])
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


class Augment:
    """uint8 images -> random crop (pad 4), flip, normalised floats; all on whole batches."""

    def __init__(self, images: torch.Tensor, memory_format: torch.memory_format):
        self.padded = F.pad(images, (4, 4, 4, 4))  # once: [N, 3, 40, 40] of bytes
        self.rows = torch.arange(32).view(1, 32, 1)
        self.columns = torch.arange(32).view(1, 1, 32)
        self.shift, self.scale = -MEAN / STD, 1.0 / (255.0 * STD)
        self.memory_format = memory_format

    def __call__(self, index: torch.Tensor) -> torch.Tensor:
        n = len(index)
        top, left = torch.randint(0, 9, (2, n, 1, 1))
        columns = torch.where(torch.rand(n, 1, 1) < 0.5, 31 - self.columns, self.columns)
        # Advanced indexes around the channel's slice: the result is [n, 32, 32, 3], channels last as it is.
        x = self.padded[index.view(n, 1, 1), :, top + self.rows, left + columns].permute(0, 3, 1, 2)
        x = x.to(torch.float32, memory_format=self.memory_format)
        return x.mul_(self.scale).add_(self.shift)


class BatchDataset(torch.utils.data.Dataset):
    """For DataLoader: one item is a batch."""

    def __init__(self, images, labels, augment, batch_size):
        self.labels, self.augment, self.batch_size = labels, augment, batch_size
        self.count = len(images)

    def __len__(self):
        return -(-self.count // self.batch_size)

    def __getitem__(self, index):
        return self.augment(index), self.labels[index]


def batches(loader: str, augment: Augment, labels: torch.Tensor, batch_size: int):
    chunks = torch.randperm(len(labels)).split(batch_size)
    if loader == "main":
        for index in chunks:
            yield augment(index), labels[index]
    elif loader == "thread":
        ready = queue.Queue(maxsize=2)

        def work():
            for index in chunks:
                ready.put((augment(index), labels[index]))
            ready.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (item := ready.get()) is not None:
            yield item
    else:
        dataset = BatchDataset(augment.padded, labels, augment, batch_size)
        yield from torch.utils.data.DataLoader(dataset, sampler=chunks, batch_size=None, num_workers=1)


def evaluate(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, memory_format) -> float:
    correct = 0
    with torch.no_grad():
        for x, y in zip(images.split(250), labels.split(250)):
            x = ((x.float() / 255.0 - MEAN) / STD).contiguous(memory_format=memory_format)
            correct += (network(x).argmax(1) == y).sum().item()
    return 100.0 * correct / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.2)
    parser.add_argument("--clip", type=float, default=0.0)
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--train-images", type=int, default=50000)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--linear", choices=("ternary", "fp32"), default="ternary")
    parser.add_argument("--memory-format", choices=("channels_last", "contiguous"), default="channels_last")
    parser.add_argument("--loader", choices=("main", "thread", "workers"), default="main")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    memory_format = getattr(torch, args.memory_format if args.memory_format == "channels_last" else "contiguous_format")
    images, labels = load(args.data, [f"data_batch_{i}.bin" for i in range(1, 6)])
    images, labels = images[: args.train_images], labels[: args.train_images]
    test_images, test_labels = load(args.data, ["test_batch.bin"])
    augment = Augment(images, memory_format)
    network = SimpleBitNetCNN(BitLinear if args.linear == "ternary" else NormLinear).to(memory_format=memory_format)
    matrices = [p for p in network.parameters() if p.dim() > 1]
    vectors = [p for p in network.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=args.lr,
                                  weight_decay=args.weight_decay, fused=True)
    steps = -(-len(labels) // args.batch_size) * args.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    for epoch in range(1, args.epochs + 1):
        start, loss_sum, correct = time.perf_counter(), torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for x, y in batches(args.loader, augment, labels, args.batch_size):
            logits = network(x)
            loss = F.cross_entropy(logits, y, label_smoothing=args.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if args.clip > 0:
                nn.utils.clip_grad_norm_(network.parameters(), args.clip)
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach() * len(y)
            correct += (logits.detach().argmax(1) == y).sum()
        seconds = time.perf_counter() - start
        print(json.dumps({"epoch": epoch, "train_loss": loss_sum.item() / len(labels),
                          "train_accuracy": 100.0 * correct.item() / len(labels),
                          "test_accuracy": evaluate(network, test_images, test_labels, memory_format),
                          "seconds": seconds, "images_per_second": len(labels) / seconds,
                          "dataset": "cifar10", "linear": args.linear, "memory_format": args.memory_format,
                          "loader": args.loader, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
