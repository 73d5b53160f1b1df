# SPDX-License-Identifier: MIT
"""What the program must refuse, and that nothing is lost by it: each case has its exit code and its message.

    refuse_test.py build/bin/train_cifar10
"""
import math
import pathlib
import resource
import shutil
import signal
import tempfile

import program

SMALL = ["--dataset", "drawn", "--train-images", 200, "--batch-size", 50]


def refused(needle: str, *options, code: int = 1, **settings) -> None:
    result = program.run(*options, code=code, **settings)
    assert needle in result.stderr, f"{options}: no {needle!r} in {result.stderr!r}"


def tree(folder: pathlib.Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_usage() -> None:
    """options_test.cpp has the rest: the program takes half a second to start."""
    refused("--nonsense", "--nonsense", code=2)
    refused("--epochs", "--epochs=nan", code=2)
    assert "--label-smoothing" in program.run("--help").stdout


def check_data(scratch: pathlib.Path) -> None:
    refused("make data", "--dataset", "cifar10", "--data", scratch / "nowhere", "--out", scratch / "a")
    short = scratch / "cifar-10-batches-bin"
    short.mkdir()
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        (short / name).write_bytes(bytes(3073))
    refused("data_batch_1.bin", "--dataset", "cifar10", "--data", short, "--out", scratch / "b")
    refused("--train-images", "--dataset", "drawn", "--train-images", 10**6, "--out", scratch / "c")
    for name in "abc":
        assert not (scratch / name).exists(), "a run that cannot begin leaves nothing behind"


def check_device(scratch: pathlib.Path) -> None:
    """A GPU that does not exist, whether or not there is another one."""
    result = program.run(*SMALL, "--device", "cuda:99", "--out", scratch / "d", code=1)
    assert "--device cuda:99: " in result.stderr, result.stderr
    assert any(text in result.stderr for text in ("no CUDA device", "no CUDA kernels", "this machine has")), result.stderr
    assert not (scratch / "d").exists()


def check_scales(scratch: pathlib.Path) -> None:
    """Group scales train on a CPU, with exact gradients."""
    refused("wanted --backward exact", *SMALL, "--device", "cpu", "--scale", "group:128", "--backward", "int8_all",
            "--out", scratch / "s")
    assert not (scratch / "s").exists()


def check_outputs(scratch: pathlib.Path) -> None:
    """A path that cannot be written is reported before the training, not after it."""
    (scratch / "place").mkdir()
    for option in ("--predictions", "--metrics"):
        for path in (scratch / "nowhere" / "file", scratch / "place"):
            refused(f"{option} {path}", *SMALL, "--epochs", 10**6, "--out", scratch / "e", option, path)
    refused("device", *SMALL, "--epochs", 10**6, "--out", scratch / "e", "--predictions", "/dev/null")
    refused("e", *SMALL, "--epochs", 10**6, "--out", "/dev/null/e")
    assert not (scratch / "e").exists()


def check_no_run(scratch: pathlib.Path) -> None:
    """--resume needs a run; a mistyped folder has none."""
    refused(f"no run in {scratch / 'typo'} to resume", "--out", scratch / "typo", "--resume")
    assert not (scratch / "typo").exists()
    (scratch / "empty").mkdir()
    refused("no run", *SMALL, "--out", scratch / "empty", "--resume")
    assert not list((scratch / "empty").iterdir())


def check_folder(scratch: pathlib.Path) -> None:
    run = scratch / "run"
    program.run(*SMALL, "--epochs", 1, "--out", run)
    before = tree(run)
    refused("--resume", *SMALL, "--epochs", 1, "--out", run)
    refused("--seed", "--out", run, "--resume", "--seed", 5)
    refused("--linear", "--out", run, "--resume", "--linear", "fp32")
    refused("--epochs", "--out", run, "--resume", "--epochs", 7)
    assert tree(run) == before, "a refusal must change nothing"

    other = scratch / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    refused("thesis.tex", *SMALL, "--out", other)
    (scratch / "file").write_text("")
    refused("file", *SMALL, "--out", scratch / "file")
    (scratch / "metrics").write_text("precious")
    refused("metrics", *SMALL, "--out", scratch / "d", "--metrics", scratch / "metrics")
    assert (other / "thesis.tex").read_text() == (scratch / "metrics").read_text() == "precious"
    assert [path.name for path in other.iterdir()] == ["thesis.tex"] and not (scratch / "d").exists()


def check_two_processes(scratch: pathlib.Path) -> None:
    run = scratch / "two"
    first = program.start(*SMALL, "--epochs", 100000, "--checkpoint-seconds", 0.1, "--out", run)
    program.wait_for(lambda: list((run / "checkpoints").glob("*.safetensors")), first)
    refused("another process", "--out", run, "--resume")
    refused("another process", *SMALL, "--out", run)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=300)
    assert first.returncode == 130, first.returncode


def check_full_disk(scratch: pathlib.Path) -> None:
    """A limit on the file size simulates a full disk: the write fails in the same place."""
    run = scratch / "full"
    program.run(*SMALL, "--epochs", 1, "--schedule", "constant", "--out", run)
    before = tree(run / "checkpoints")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, 10 << 20))

    refused("checkpoint-", *SMALL, "--epochs", 2, "--schedule", "constant", "--out", run, "--resume", preexec_fn=limit)
    assert tree(run / "checkpoints") == before, "the old checkpoints must stay, and no half ones"
    program.run(*SMALL, "--epochs", 2, "--schedule", "constant", "--out", run, "--resume")
    assert len(program.metrics(run)) == 2


def check_lost_run(scratch: pathlib.Path) -> None:
    """A learning rate that diverges: an error that says since when, and no model of NaN."""
    run = scratch / "lost"
    refused("not finite", *SMALL, "--epochs", 100, "--lr", 1e30, "--clip", 0, "--warmup-epochs", 0, "--out", run)
    assert not (run / "model.safetensors").exists()
    one_step = ["--dataset", "drawn", "--train-images", 128, "--batch-size", 128, "--schedule", "constant", "--warmup-epochs", 0,
                "--lr", 1e30, "--conv-lr-factor", 1]
    for precision, linear, epochs in (("fp32", "ternary", 1), ("fp32", "ternary", 3), ("bf16", "fp32", 3), ("fp16", "ternary", 3)):
        run = scratch / f"lost-{precision}-{linear}-{epochs}"
        options = [*one_step, "--precision", precision, "--linear", linear, "--epochs", epochs]
        result = program.run(*options, "--out", run, code=1)
        assert "finite" in result.stderr or "nan" in result.stderr, result.stderr
        check_lost(run, result)
        result = program.run("--out", run, "--resume", "--epochs", 5, code=1)
        check_lost(run, result)
    result = program.run(*one_step, "--epochs", 3, "--out", scratch / "lost-again", code=1)
    assert "the first that was not finite is step 2 (epoch 2, batch 1)" in result.stderr, result.stderr


def check_lost(run: pathlib.Path, result) -> None:
    assert not (run / "model.safetensors").exists()
    assert "json" not in result.stderr, result.stderr
    assert "loss 0.0000" not in result.stdout, result.stdout
    for epoch in program.metrics(run):
        for key, value in epoch.items():
            assert value is None or isinstance(value, str) or math.isfinite(value), (key, epoch)


def check_precisions(scratch: pathlib.Path) -> None:
    for precision in ("bf16", "fp16"):
        for linear in ("ternary", "fp32"):
            run = scratch / f"{precision}-{linear}"
            program.run(*SMALL, "--epochs", 1, "--precision", precision, "--linear", linear, "--out", run)
            (epoch,) = program.metrics(run)
            assert epoch["precision"] == precision and epoch["train_loss"] < 5.0, epoch


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        check_usage()
        check_data(scratch)
        check_device(scratch)
        check_scales(scratch)
        check_outputs(scratch)
        check_no_run(scratch)
        check_folder(scratch)
        check_two_processes(scratch)
        check_full_disk(scratch)
        check_lost_run(scratch)
        check_precisions(scratch)
        refused("CUDA", *SMALL, "--device", "cuda", "--out", scratch / "gpu")
        shutil.rmtree(scratch / "run")


if __name__ == "__main__":
    main()
