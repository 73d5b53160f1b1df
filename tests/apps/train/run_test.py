# SPDX-License-Identifier: MIT
"""A short run from beginning to end: it learns, and writes all of its files.

    run_test.py build/bin/train_cifar10
"""
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import program

# One epoch over 5,000 real images.
FLOOR = {"cifar10": 35.0, "drawn": 20.0}
ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = program.PROGRAM.parent


def check_events(folder: pathlib.Path) -> None:
    """The event file, read by TensorBoard, agrees with metrics.jsonl."""
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
    steps = [event.step for event in events.Scalars("step/loss")]
    assert steps == list(range(1, 101)), f"every step of a short run: {steps}"


def check_hints(output: str) -> None:
    """The commands that are printed at the end work."""
    hints = dict(line.split(": ", 1) for line in output.splitlines() if line.startswith(("evaluate it", "view its")))
    trit = PROGRAMS / "trit"
    assert ("evaluate it without torch" in hints) == trit.exists(), output
    if trit.exists():
        command = hints["evaluate it without torch"]
        result = subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert "images correct" in result.stdout, (command, result.stdout)
    command = hints["view its curves"]
    result = subprocess.run(["sh", "-c", f"{command} --inspect"], check=True, stdout=subprocess.PIPE, text=True, timeout=200)
    assert "epoch/test_accuracy" in result.stdout, (command, result.stdout)


def check_float_twin(scratch: pathlib.Path) -> None:
    """The runtime has no float layer with a norm: no command is printed that could not run the file, which is an input
    for `trit pack`."""
    result = program.run("--dataset", "drawn", "--train-images", 100, "--epochs", 1, "--linear", "fp32", "--out", scratch / "twin")
    assert "evaluate it" not in result.stdout and "view its curves" in result.stdout, result.stdout
    model, packed, trit = scratch / "twin" / "model.safetensors", scratch / "packed", PROGRAMS / "trit"
    data = model.read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    graph = json.loads(header["__metadata__"]["trit.model"])
    layers = [node for node in graph["nodes"] if node["op"].endswith("linear")]
    assert [(node["op"], node["name"], node["norm"]) for node in layers] == [("bit_linear", name, "rms") for name in ("fc1", "fc2")]
    assert header["fc1.weight"]["dtype"] == "F32", header
    if trit.exists():
        subprocess.run([trit, "pack", model, packed], check=True, stderr=subprocess.DEVNULL)
        subprocess.run([trit, "eval", packed, "--dataset", "drawn", "--limit", "10"], check=True, stderr=subprocess.DEVNULL)


def check_few_steps(scratch: pathlib.Path) -> None:
    """A run that ends close to chance says that this is expected, and null values can be plotted."""
    result = program.run("--dataset", "drawn", "--train-images", 100, "--epochs", 1, "--out", scratch / "few")
    assert "close to chance" in result.stdout and "99.7 %" in result.stdout, result.stdout
    metrics = scratch / "null.jsonl"
    (epoch,) = program.metrics(scratch / "few")
    lines = [epoch, epoch | {"epoch": 2, "test_loss": None, "train_loss": None}, epoch | {"epoch": 3, "test_accuracy": None}]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    subprocess.run([sys.executable, ROOT / "scripts" / "plot_training.py", metrics], check=True)
    assert (scratch / "training.png").read_bytes().startswith(b"\x89PNG")


def check_long_run(scratch: pathlib.Path) -> None:
    """The curve of a run of more than 1,000 steps has every 50th step, the first and the last."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = scratch / "long"
    program.run("--dataset", "drawn", "--train-images", 1004, "--batch-size", 2, "--epochs", 2, "--out", folder)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    steps = [event.step for event in events.Scalars("step/loss")]
    assert steps == [1, *range(50, 1001, 50), 1004], steps


def check_streams(scratch: pathlib.Path) -> None:
    """The exit code and the files do not depend on where the messages go."""
    options = f"--dataset drawn --train-images 100 --batch-size 50 --epochs 1 --threads 1 --out {shlex.quote(str(scratch))}/streams"
    program.run(*shlex.split(options))
    wanted = (scratch / "streams" / "model.safetensors").read_bytes()
    for number, places in enumerate(("2>&-", "2>/dev/full", ">&-", ">/dev/full", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "| true")):
        folder = scratch / f"streams{number}"
        for code in (0, 1):  # again: the folder holds a run
            command = f"set -o pipefail; {shlex.quote(str(program.PROGRAM))} {options}{number} {places}"
            result = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, timeout=500)
            assert result.returncode == code, (places, result)
            assert (folder / "model.safetensors").read_bytes() == wanted, places
        assert len(program.metrics(folder)) == 1


def check_threads(scratch: pathlib.Path) -> None:
    """--threads 0 takes the CPUs that the process may use."""
    allowed = os.sched_getaffinity(0)
    settings = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    for count in {1, len(allowed)}:
        few = set(sorted(allowed)[:count])
        result = program.run("--dataset", "drawn", "--train-images", 10, "--epochs", 1, "--threads", 0, "--out", scratch / f"cpu{count}",
                             preexec_fn=lambda: os.sched_setaffinity(0, few), env=settings)
        assert f" {count} threads" in result.stdout, (count, result.stdout)


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
        check_hints(result.stdout)
        classes = predictions.read_text().split()
        assert len(classes) in (10000, 2000) and set(classes) <= set("0123456789")
        picture = folder / "training.png"
        subprocess.run([sys.executable, ROOT / "scripts" / "plot_training.py", folder / "metrics.jsonl"], check=True)
        assert picture.read_bytes().startswith(b"\x89PNG")
        check_float_twin(pathlib.Path(scratch))
        check_few_steps(pathlib.Path(scratch))
        check_long_run(pathlib.Path(scratch))
        check_threads(pathlib.Path(scratch))
        check_streams(pathlib.Path(scratch))


if __name__ == "__main__":
    main()
