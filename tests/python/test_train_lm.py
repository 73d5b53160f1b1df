# SPDX-License-Identifier: MIT
"""examples/python/train_lm.py on this repository's documents: one process, and two that are interrupted and resumed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "python" / "train_lm.py"
SMALL = ["--text", ROOT / "docs", "--hidden", "64", "--layers", "2", "--sequence", "64", "--batch", "16"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}


def started(*options, processes=1):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    return subprocess.Popen([sys.executable, *launcher, SCRIPT, *options], env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def ended(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-4000:] + output
    return output


def test_one_process(tmp_path):
    output = ended(started(*SMALL, "--out", tmp_path, "--tokens", "61440", "--every", "30", "--vocab", "300"))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tokens"] == 61440 and results["held_out_perplexity"] < 250, output
    assert abs(results["packed_perplexity"] / results["held_out_perplexity"] - 1) < 1e-3
    assert "step 60 of 60" in output and "\nThe " in output, output
    assert any((tmp_path / "tensorboard").iterdir())
    command = os.environ.get("TRIT_COMMAND")
    if command:
        assert "TQ2_0" in subprocess.run([command, "info", tmp_path / "model.gguf"], capture_output=True, text=True, check=True).stdout \
            or "Q2_0" in output


def test_interrupt_and_resume(tmp_path):
    """FSDP2 in two processes until a Ctrl-C, then one process to the end: the same as without the interrupt, but for the
    order of additions."""
    options = [*SMALL, "--tokens", "40960", "--every", "10", "--parallel", "fsdp"]
    process = started(*options, "--out", tmp_path / "a", processes=2)
    while not (tmp_path / "a" / "checkpoints" / "00000010").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    saved = [path.name for path in (tmp_path / "a" / "checkpoints").iterdir()]
    assert len(saved) == 1, (saved, errors[-3000:])
    if "interrupted at step" in output:  # not yet at the end
        assert int(saved[0]) < 40
    ended(started(*options, "--out", tmp_path / "a", "--resume"))
    ended(started(*options, "--out", tmp_path / "b"))
    found, want = (json.loads((tmp_path / name / "results.json").read_text())["held_out_perplexity"] for name in "ab")
    assert abs(found / want - 1) < 0.02, (found, want)
