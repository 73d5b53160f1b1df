#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The main job: data, training, export, and the exported file's accuracy without torch. `make train` runs it.

    train.py [--out FOLDER] [--dataset NAME] [--data FOLDER] [any option of build/bin/train_cifar10]

A run lands in FOLDER (default: runs/<data set>-<date>-<time>): checkpoints, metrics.jsonl, TensorBoard events,
model.safetensors, training.png. Ctrl-C saves a checkpoint and exits 130; `--resume --out FOLDER` goes on.
"""
import argparse
import datetime
import json
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
PROGRAMS = ROOT / "build" / "bin"
INTERRUPTED = 130


def say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


def run(command: list, **options) -> subprocess.CompletedProcess:
    """Runs a step; a step that fails has said why, so its exit code is all that is left to hand on."""
    result = subprocess.run([str(part) for part in command], **options)
    if result.returncode < 0:  # ended by a signal, as a shell would report it
        sys.exit(128 - result.returncode)
    if result.returncode != 0:
        sys.exit(result.returncode)
    return result


def train(command: list) -> int:
    """The trainer's exit code. Ctrl-C reaches it by itself, SIGTERM and SIGHUP (which may come twice) are handed on:
    it saves and exits 130."""
    process = subprocess.Popen([str(part) for part in command])
    signal.signal(signal.SIGINT, lambda *_: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda received, _: process.send_signal(received))
    code = process.wait()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, handler in before.items():
        signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def fetch_data(dataset: str | None, data: str | None) -> tuple[str, str]:
    """Name and folder of the data set; get_data.py says loudly when it is not the one that was wanted."""
    command = [sys.executable, SCRIPTS / "get_data.py"]
    command += ["--dataset", dataset] if dataset else []
    command += ["--data", data] if data else []
    answer = run(command, stdout=subprocess.PIPE, text=True).stdout.split("\n")[0]
    name, _, folder = answer.partition(" ")
    return name, folder


def run_folder(args: argparse.Namespace, dataset: str) -> pathlib.Path:
    if args.out:
        return pathlib.Path(args.out)
    now = datetime.datetime.now()
    return ROOT / "runs" / f"{dataset}-{now:%Y%m%d-%H%M%S}"


def last_epoch(metrics: pathlib.Path) -> dict:
    return json.loads(metrics.read_text().splitlines()[-1])


def packed_accuracy(model: pathlib.Path, dataset: str, data: str) -> str:
    """What `trit eval`, without torch, says of the packed file."""
    command = [PROGRAMS / "trit", "eval", model, "--dataset", dataset, "--json"] + (["--data", data] if data else [])
    packed = json.loads(run(command, stdout=subprocess.PIPE, text=True).stdout)
    return f"{packed['accuracy']:6.2f} %   ({packed['images_per_second']:,.0f} images/s)"


def report(dataset: str, data: str, out: pathlib.Path, metrics: pathlib.Path) -> None:
    """The trained module's accuracy beside that of the packed file."""
    model = out / "model.safetensors"
    trained = last_epoch(metrics)
    # The float twin's layers have a norm in front, which the runtime has for ternary ones only.
    packed = packed_accuracy(model, dataset, data) if trained["linear"] == "ternary" else "   none: float layers"
    picture = out / "training.png"
    run([sys.executable, SCRIPTS / "plot_training.py", metrics, "--output", picture])

    say()
    say(f"test accuracy on {dataset} after epoch {trained['epoch']}")
    say(f"  trained module, LibTorch         {trained['test_accuracy']:6.2f} %")
    say(f"  packed file, trit without torch  {packed}")
    say(f"model    {model} ({model.stat().st_size:,} bytes)")
    say(f"curve    {picture}")
    say(f"all      {out}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     add_help=False, allow_abbrev=False)
    for option in ("--data", "--dataset", "--out", "--metrics"):
        parser.add_argument(option)
    for flag in ("--resume", "--help"):
        parser.add_argument(flag, action="store_true")
    args, others = parser.parse_known_args()
    if args.help or "-h" in others:
        print(__doc__, flush=True)
        return subprocess.run([PROGRAMS / "train_cifar10", "--help"]).returncode
    if args.resume and not args.out:
        runs = sorted((ROOT / "runs").glob("*/checkpoints"), key=lambda folder: folder.stat().st_mtime)
        say("train: --resume needs --out FOLDER" + (f"; the latest run is {runs[-1].parent}" if runs else ""))
        return 2

    dataset, data = fetch_data(args.dataset, args.data)
    out = run_folder(args, dataset)
    metrics = pathlib.Path(args.metrics) if args.metrics else out / "metrics.jsonl"
    command = [PROGRAMS / "train_cifar10", "--dataset", dataset, "--out", out, "--metrics", metrics]
    command += ["--data", data] if data else []
    command += ["--resume"] if args.resume else []
    code = train([*command, *others])
    if code == INTERRUPTED:
        say(f"train: interrupted; go on with: make train ARGS=\"--resume --out {out}\"")
    if code != 0:
        return code
    report(dataset, data, out, metrics)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
