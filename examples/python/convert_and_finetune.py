# SPDX-License-Identifier: MIT
"""Turns a float model into a ternary one: convert, train with a growing share of quantisation, save, load, run.

    python convert_and_finetune.py [MODEL.safetensors]

The model is a small classifier of random points, so that it runs in seconds; take yours instead.
"""
import sys

import torch
import trit

STEPS, WARM_UP = 600, 300
path = sys.argv[1] if len(sys.argv) > 1 else "converted.safetensors"
torch.manual_seed(0)
points = torch.randn(4096, 16)
labels = (points @ torch.randn(16, 6)).argmax(1)


def accuracy(model: torch.nn.Module) -> float:
    with torch.no_grad():
        return (model(points).argmax(1) == labels).double().mean().item()


def train(model: torch.nn.Module, steps: int, warm_up: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(steps):
        if warm_up and step <= warm_up:
            trit.set_lambda(model, step / warm_up)  # 0: float, 1: the integer kernels
        batch = torch.randint(len(points), (256,))
        loss = torch.nn.functional.cross_entropy(model(points[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


model = torch.nn.Sequential(torch.nn.Linear(16, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(),
                            torch.nn.Linear(256, 6))
train(model, STEPS, 0)
print(f"float: {100 * accuracy(model):.1f} %")
for conversion in trit.convert(model, lambda name, linear: name != "4"):  # the last layer stays float
    print(conversion)
print(f"converted, not trained: {100 * accuracy(model):.1f} %")
train(model, STEPS, WARM_UP)
print(f"ternary, trained: {100 * accuracy(model):.1f} %")
trit.save(model, path)
want = model(points[:5])
trit.freeze(model)  # for inference
assert torch.equal(model(points[:5]), want)
print(f"wrote {path}")
