# SPDX-License-Identifier: MIT
"""Shared by the tests of the program: running it, and a data set."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

# Only gpu_test.py is about a GPU. The others compare runs bit for bit, and the program would take a GPU that is there,
# whose float convolutions differ from run to run.
if pathlib.Path(sys.argv[0]).name != "gpu_test.py":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

PROGRAM = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None


def dataset_options() -> list[str]:
    """Real images if the machine has them, otherwise the drawn ones."""
    if os.environ.get("TRIT_CIFAR10"):
        return ["--dataset", "cifar10"]
    return ["--dataset", "drawn"]


def start(*options, **settings) -> subprocess.Popen:
    command = [str(part) for part in (PROGRAM, *options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def run(*options, code: int = 0, **settings) -> subprocess.CompletedProcess:
    """Runs the program to its end and checks the exit code."""
    process = start(*options, **settings)
    output, errors = process.communicate(timeout=500)
    assert process.returncode == code, f"{options}: exit code {process.returncode}, wanted {code}\n{output}\n{errors}"
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def kill_after(seconds: float, number: signal.Signals, *options) -> tuple[int, str, str]:
    """Runs the program and sends it a signal; (exit code, stdout, stderr). It may have ended before."""
    process = start(*options)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    output, errors = process.communicate(timeout=500)
    return process.returncode, output, errors


def wait_for(condition, process: subprocess.Popen, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the program ended: {process.communicate()}"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def metrics(folder: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# What two runs with the same seed must agree in; times differ.
SAME = ("epoch", "train_loss", "train_accuracy", "test_accuracy", "test_loss", "learning_rate")


def results(folder: pathlib.Path) -> list[tuple]:
    return [tuple(epoch[key] for key in SAME) for epoch in metrics(folder)]
