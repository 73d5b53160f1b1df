# SPDX-License-Identifier: MIT
"""Training on a GPU from outside: it learns as the CPU does, and a run that is killed, interrupted and resumed ends as one that was
left alone. Skipped (exit code 77) where the program finds no GPU.

    gpu_test.py build/bin/train_cifar10

cuDNN adds gradients in an order of its own, so two runs agree closely and not to the bit; what does not depend on sums (epochs,
learning rates, steps) is equal.
"""
import pathlib
import signal
import sys
import tempfile

import program

EPOCHS, IMAGES = 4, 4000
SMALL = ["--dataset", "drawn", "--train-images", IMAGES, "--batch-size", 25, "--epochs", EPOCHS, "--seed", 3]


def skip_without_gpu(scratch: pathlib.Path) -> None:
    process = program.start("--dataset", "drawn", "--train-images", 50, "--epochs", 1, "--device", "cuda", "--out", scratch / "probe")
    _, errors = process.communicate(timeout=300)
    if process.returncode != 0 and ("no CUDA device" in errors or "no CUDA kernels" in errors):
        print(f"skipped: {errors.strip()}")
        sys.exit(77)
    assert process.returncode == 0, errors


def check_close(found: pathlib.Path, wanted: pathlib.Path, accuracy: float) -> None:
    ours, theirs = program.metrics(found), program.metrics(wanted)
    assert [epoch["epoch"] for epoch in ours] == list(range(1, EPOCHS + 1)), ours
    assert [epoch["learning_rate"] for epoch in ours] == [epoch["learning_rate"] for epoch in theirs]
    first, last = ours[0], ours[-1]
    # The first epoch has the same batches and starting point; rounding grows after it.
    assert abs(first["train_loss"] / theirs[0]["train_loss"] - 1) < 0.05, (first, theirs[0])
    assert abs(last["test_accuracy"] - theirs[-1]["test_accuracy"]) < accuracy, (last, theirs[-1])


def resume(folder: pathlib.Path, *options) -> None:
    result = program.run("--out", folder, "--resume", *options)
    assert (folder / "model.safetensors").exists(), result.stdout


def broken_off(folder: pathlib.Path, options: list, number: signal.Signals) -> None:
    """Sends a signal to a run once it has a checkpoint within an epoch; the run must not have ended before."""
    process = program.start(*options, "--checkpoint-seconds", 0.05, "--out", folder)
    program.wait_for(lambda: list((folder / "checkpoints").glob("*.safetensors")), process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == (130 if number == signal.SIGINT else -number), (process.returncode, output, errors)
    assert not (folder / "model.safetensors").exists()


def check_lost_run(scratch: pathlib.Path) -> None:
    """A learning rate that diverges: an error that says so, and no model of NaN."""
    diverging = [*SMALL, "--lr", 1e30, "--clip", 0, "--warmup-epochs", 0]
    for precision in ("fp32", "bf16", "fp16"):
        run = scratch / f"lost-{precision}"
        result = program.run(*diverging, "--device", "cuda", "--precision", precision, "--out", run, code=1)
        assert "finite" in result.stderr or "nan" in result.stderr, result.stderr
        assert not (run / "model.safetensors").exists()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        skip_without_gpu(scratch)
        straight = scratch / "straight"
        program.run(*SMALL, "--device", "cuda:0", "--out", straight)
        processor = scratch / "cpu"
        program.run(*SMALL, "--device", "cpu", "--out", processor)
        check_close(straight, processor, accuracy=5)
        for precision in ("fp32", "bf16", "fp16"):
            wanted = scratch / f"straight-{precision}"
            options = SMALL + ["--device", "cuda", "--precision", precision]
            program.run(*options, "--out", wanted)
            for number in (signal.SIGINT, signal.SIGKILL):
                folder = scratch / f"{precision}-{number.name}"
                broken_off(folder, options, number)
                resume(folder, "--device", "cuda")
                check_close(folder, wanted, accuracy=5)
        check_lost_run(scratch)
        # A checkpoint is not bound to the device that it was made on.
        moved = scratch / "moved"
        broken_off(moved, SMALL + ["--device", "cuda"], signal.SIGINT)
        resume(moved, "--device", "cpu")
        check_close(moved, processor, accuracy=5)


if __name__ == "__main__":
    main()
