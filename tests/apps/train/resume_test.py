# SPDX-License-Identifier: MIT
"""A run that is killed, interrupted and resumed ends bit-identical to one that was not.

    resume_test.py build/bin/train_cifar10 [--kills 4] [--epochs 2] [--train-images 1500] [--data FOLDER] [--seed S]

The full-size check is `--kills 20 --epochs 2 --train-images 0` (all images).
"""
import argparse
import pathlib
import random
import signal
import subprocess
import tempfile
import time

import program


def common(args: argparse.Namespace) -> list:
    options = program.dataset_options() + ["--epochs", args.epochs, "--train-images", args.train_images, "--seed", 3,
                                           "--batch-size", args.batch_size, "--checkpoint-seconds", args.checkpoint_seconds]
    return options + (["--data", args.data] if args.data else [])


def check_same(straight: pathlib.Path, other: pathlib.Path) -> None:
    assert program.results(straight) == program.results(other), (program.metrics(straight), program.metrics(other))
    assert (straight / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def has_checkpoint(folder: pathlib.Path) -> bool:
    return bool(list((folder / "checkpoints").glob("*.safetensors")))


def kill_often(options: list, folder: pathlib.Path, kills: int, seconds: float) -> None:
    """kill -9 at random moments of a run that takes `seconds`, then to the end."""
    start, dead = time.monotonic(), 0
    for number in range(kills):
        # Start-up takes half a second or more of each attempt; the rest adds up to about the whole run.
        moment = random.uniform(0.1, 1.5 * (0.7 + seconds / kills))
        # Before its first checkpoint a run begins anew.
        resume = ["--resume"] if has_checkpoint(folder) else []
        code, _, errors = program.kill_after(moment, signal.SIGKILL, *options, "--out", folder, *resume)
        assert code in (0, -signal.SIGKILL), errors
        dead += code != 0
        if code == 0 and number + 1 < kills:
            print(f"ended after {dead} kills")
            break
    program.run(*options, "--out", folder, *(["--resume"] if has_checkpoint(folder) else []))
    print(f"killed {dead} times in {time.monotonic() - start:.0f} s; a run left alone takes {seconds:.0f} s")


def interrupt_once(options: list, folder: pathlib.Path, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal save and exit with 130; the printed command resumes the run."""
    process = program.start(*options, "--out", folder)
    program.wait_for(lambda: has_checkpoint(folder), process)
    process.send_signal(number)
    if number == signal.SIGHUP:
        process.send_signal(number)  # the shell repeats the kernel's
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130, (number, process.returncode, output, errors)
    assert not list(folder.rglob("*.tmp-*")), list(folder.rglob("*"))
    command = output.splitlines()[-1].removeprefix("interrupted; resume with: ")
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL, timeout=500)


def hangup_without_a_terminal(options: list, folder: pathlib.Path) -> None:
    """Under nohup a closed terminal has no effect."""
    process = program.start(*options, "--out", folder, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    program.wait_for(lambda: has_checkpoint(folder), process)
    process.send_signal(signal.SIGHUP)
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, (process.returncode, output, errors)


def corrupt_newest(options: list, straight: pathlib.Path) -> None:
    """If the newest checkpoint is damaged, the run warns and resumes from the previous one."""
    newest = sorted((straight / "checkpoints").glob("*.safetensors"))[-1]
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    newest.write_bytes(damaged)
    model = (straight / "model.safetensors").read_bytes()
    before = program.results(straight)
    result = program.run(*options, "--out", straight, "--resume")
    assert "corrupt" in result.stderr and newest.name in result.stderr, result.stderr
    assert (straight / "model.safetensors").read_bytes() == model and program.results(straight) == before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-images", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--checkpoint-seconds", type=float, default=0.2)
    parser.add_argument("--data", default=None)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100000)
    args = parser.parse_args()
    print(f"--seed {args.seed}")
    random.seed(args.seed)
    options = common(args)
    with tempfile.TemporaryDirectory() as scratch:
        straight, killed = (pathlib.Path(scratch) / name for name in ("straight", "killed"))
        start = time.monotonic()
        program.run(*options, "--out", straight)
        kill_often(options, killed, args.kills, time.monotonic() - start)
        check_same(straight, killed)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            interrupted = pathlib.Path(scratch) / f"it's {number.name}"
            interrupt_once(options, interrupted, number)
            check_same(straight, interrupted)
        hangup_without_a_terminal(options, pathlib.Path(scratch) / "nohup")
        check_same(straight, pathlib.Path(scratch) / "nohup")
        corrupt_newest(options, straight)


if __name__ == "__main__":
    main()
