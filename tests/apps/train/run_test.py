# SPDX-License-Identifier: MIT
"""A short run from beginning to end: it learns, and writes what it says.

    run_test.py build/bin/train_cifar10
"""
import math
import pathlib
import subprocess
import sys
import tempfile

import program

# One epoch over 5,000 real images.
FLOOR = {"cifar10": 35.0, "drawn": 20.0}
ROOT = pathlib.Path(__file__).resolve().parents[3]


def check_events(folder: pathlib.Path) -> None:
    """The event file, read by TensorBoard's own reader, says what metrics.jsonl says."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    epochs = program.metrics(folder)
    for tag, key in (("epoch/train_loss", "train_loss"), ("epoch/train_accuracy", "train_accuracy"),
                     ("epoch/test_accuracy", "test_accuracy"), ("epoch/test_loss", "test_loss")):
        values = [event.value for event in events.Scalars(tag)]
        assert len(values) == len(epochs), (tag, values)
        for value, epoch in zip(values, epochs):
            assert math.isclose(value, epoch[key], rel_tol=1e-6), (tag, value, epoch[key])
    assert events.Scalars("step/loss"), "the loss of single steps"


def check_model(folder: pathlib.Path) -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as model:
        assert model.metadata()["trit.layout"] == "rows-2bit"
        shapes = {name: (model.get_tensor(name).dtype.name, model.get_tensor(name).shape) for name in model.keys()}
    assert shapes["fc1.weight"] == ("uint8", (512, 1024)), shapes
    assert shapes["fc2.weight"] == ("uint8", (10, 128)), shapes
    assert shapes["fc1.weight_scale"] == ("float32", (1,)) and shapes["fc1.norm.weight"] == ("float32", (4096,))
    assert shapes["conv1.weight"] == ("float32", (32, 3, 3, 3)) and shapes["conv2.bias"] == ("float32", (64,))


def main() -> None:
    options = program.dataset_options()
    dataset = options[1]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "run"
        predictions = pathlib.Path(scratch) / "predictions.txt"
        result = program.run(*options, "--epochs", 1, "--train-images", 5000, "--batch-size", 50, "--out", folder,
                             "--predictions", predictions)
        (epoch,) = program.metrics(folder)
        print(epoch)
        assert epoch["test_accuracy"] > FLOOR[dataset], epoch
        assert epoch["dataset"] == dataset and epoch["linear"] == "ternary" and epoch["epoch"] == 1
        assert math.isclose(epoch["images_per_second"], 5000 / epoch["seconds"], rel_tol=1e-9)
        for line in result.stdout.splitlines():
            assert "accuracy" not in line or dataset in line, f"names no data set: {line}"
        check_events(folder)
        check_model(folder)
        classes = predictions.read_text().split()
        assert len(classes) in (10000, 2000) and set(classes) <= set("0123456789")
        picture = folder / "training.png"
        subprocess.run([sys.executable, ROOT / "scripts" / "plot_training.py", folder / "metrics.jsonl"], check=True)
        assert picture.read_bytes().startswith(b"\x89PNG")


if __name__ == "__main__":
    main()
