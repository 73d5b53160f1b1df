# SPDX-License-Identifier: MIT
"""The Python code of README.md and docs/python.md runs, and the examples do."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "python"


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_code_of_documents(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), flags=re.M | re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, document, "exec"), names)
    assert (tmp_path / "model.safetensors").exists()


def run(*command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_convert_example(tmp_path):
    output = run(EXAMPLES / "convert_and_finetune.py", tmp_path / "model.safetensors")
    before, after = (float(re.search(rf"^{what}: ([0-9.]+) %", output, re.M)[1]) for what in ("float", "ternary, trained"))
    assert before > 90 and after > 85, output


def test_cifar10_example(tmp_path):
    """One epoch on drawn images: ten colours, so that it learns something."""
    generator = torch.Generator().manual_seed(0)
    for name, count in [("data_batch_1", 640), ("data_batch_2", 640), ("test_batch", 200)]:
        labels = torch.randint(0, 10, (count, 1), generator=generator)
        images = torch.randint(0, 100, (count, 3072), generator=generator) + 15 * labels
        (tmp_path / f"{name}.bin").write_bytes(torch.cat([labels, images], 1).to(torch.uint8).numpy().tobytes())
    output = run(EXAMPLES / "train_cifar10.py", tmp_path, "--epochs", "3", "--out", tmp_path / "model.safetensors")
    accuracy = float(re.findall(r"test accuracy ([0-9.]+) %", output)[-1])
    assert accuracy > 25, output
    command = os.environ.get("TRIT_COMMAND")
    if command:
        told = subprocess.run([command, "info", tmp_path / "model.safetensors", "--codes"], capture_output=True, text=True,
                              check=False)
        assert told.returncode == 0 and "fc2" in told.stdout, told.stderr
