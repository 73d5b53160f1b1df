# SPDX-License-Identifier: MIT
"""Trains the network of docs/training.md on CIFAR-10 and writes it for `trit run` and `trit eval`.

    python train_cifar10.py FOLDER [--epochs 20] [--out model.safetensors] [--compile]

FOLDER holds the binary version of CIFAR-10 (data_batch_1.bin, ..., test_batch.bin); `make data` fetches it.
"""
import argparse
import pathlib

import torch
import trit
from torch.nn.functional import cross_entropy, max_pool2d, relu

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
GRAPH = {"input": {"shape": [3, 32, 32], "mean": MEAN, "std": STD},
         "nodes": [{"op": "input"},
                   {"op": "conv2d", "name": "conv1", "inputs": [0], "stride": 1, "padding": 1},
                   {"op": "relu", "inputs": [1]}, {"op": "max_pool2d", "inputs": [2], "kernel": 2, "stride": 2},
                   {"op": "conv2d", "name": "conv2", "inputs": [3], "stride": 1, "padding": 1},
                   {"op": "relu", "inputs": [4]}, {"op": "max_pool2d", "inputs": [5], "kernel": 2, "stride": 2},
                   {"op": "flatten", "inputs": [6]},
                   {"op": "bit_linear", "name": "fc1", "inputs": [7], "norm": "rms", "eps": 1e-6},
                   {"op": "relu", "inputs": [8]},
                   {"op": "bit_linear", "name": "fc2", "inputs": [9], "norm": "rms", "eps": 1e-6}]}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = trit.nn.BitLinear(4096, 512, bias=False)
        self.fc2 = trit.nn.BitLinear(512, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(relu(self.conv1(x)), 2)
        x = max_pool2d(relu(self.conv2(x)), 2)
        return self.fc2(relu(self.fc1(x.flatten(1))))


def read(files: list[pathlib.Path], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 3, 32, 32] as the network takes them, and labels [N]."""
    rows = torch.cat([torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8).view(-1, 3073) for file in files])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((rows[:, 1:].view(-1, 3, 32, 32) / 255 - mean) / std).to(device), rows[:, 0].long().to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="model.safetensors")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    device = "cuda" if "cuda" in trit.backends() else "cpu"
    images, labels = read(sorted(args.folder.glob("data_batch_*.bin")), device)
    test_images, test_labels = read([args.folder / "test_batch.bin"], device)
    torch.manual_seed(0)
    net = Net().to(device)
    model = torch.compile(net) if args.compile else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.1)
    steps = args.epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    for epoch in range(args.epochs):
        for batch in torch.randperm(len(images), device=device)[: len(images) // 128 * 128].view(-1, 128):
            x = images[batch].flip(3) if torch.rand(()) < 0.5 else images[batch]
            loss = cross_entropy(model(x), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            right = sum(int((net(x).argmax(1) == y).sum()) for x, y in zip(test_images.split(500), test_labels.split(500)))
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {100 * right / len(test_labels):.2f} %", flush=True)
    trit.save(net, args.out, GRAPH)
    print(f"{args.out}: trit eval {args.out} --data {args.folder}")


if __name__ == "__main__":
    main()
