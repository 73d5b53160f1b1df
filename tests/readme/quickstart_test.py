# SPDX-License-Identifier: MIT
"""Runs the Python and shell code of docs/quickstart.md, and checks what comes out against PyTorch."""

import os
import random
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261128


def section(title: str) -> str:
    text = (ROOT / "docs" / "quickstart.md").read_text()
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S).group(1)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def bit_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """docs/numerics.md without a norm, up to rounding."""
    beta = weight.abs().mean()
    t = (weight / beta).round().clamp(-1, 1)
    s = x.abs().max(dim=1, keepdim=True).values / 127
    return (x / s).round() @ t.T * s * beta + bias


class Quickstart(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        command = Path(os.environ["TRIT_COMMAND"])
        self.environment = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}

    def run_code(self, code: str, commands: str) -> dict:
        """Python, then shell, in a folder of the test's own; the names that the Python code defined."""
        before = Path.cwd()
        names: dict = {}
        try:
            os.chdir(self.root)
            exec(compile(code, "docs/quickstart.md", "exec"), names)
        finally:
            os.chdir(before)
        subprocess.run(["sh", "-e", "-c", commands], cwd=self.root, env=self.environment, check=True)
        return names

    def test_without_torch(self) -> None:
        text = section("A few minutes without torch")
        (code,), (_, commands) = blocks(text, "python"), blocks(text, "sh")
        print(f"seed {SEED}")
        random.seed(SEED)
        self.run_code(code, commands)
        tensors, x = load_file(self.root / "tiny.safetensors"), load_file(self.root / "x.safetensors")["x"]
        no_bias = torch.zeros(())
        hidden = bit_linear(x, tensors["fc1.weight"], no_bias).relu()
        wanted = bit_linear(hidden, tensors["fc2.weight"], no_bias)
        y = load_file(self.root / "y.safetensors")["y"]
        torch.testing.assert_close(y, wanted, rtol=0, atol=float(wanted.abs().max()) / 50)

    def test_from_pytorch(self) -> None:
        text = section("From PyTorch")
        (code,), (commands,) = blocks(text, "python"), blocks(text, "sh")
        self.assertLessEqual(len(code.splitlines()), 15)
        print(f"seed {SEED}")
        torch.manual_seed(SEED)
        names = self.run_code(code, commands)
        model, x = names["model"], load_file(self.root / "x.safetensors")["x"]
        with torch.no_grad():
            torch.testing.assert_close(load_file(self.root / "y-float.safetensors")["y"], model(x))
            hidden = bit_linear(x, model[0].weight, model[0].bias).relu()
            wanted = bit_linear(hidden, model[2].weight, model[2].bias)
        # A rounding of the float32 sums can move an activation by one of 127 steps.
        y = load_file(self.root / "y.safetensors")["y"]
        torch.testing.assert_close(y, wanted, rtol=0, atol=float(wanted.abs().max()) / 50)
        (option,) = re.findall(r"`trit pack (--filter .*?)`", text)
        subprocess.run(["sh", "-e", "-c", f"trit pack float.safetensors part.safetensors {option}"], cwd=self.root,
                       env=self.environment, check=True)
        part = load_file(self.root / "part.safetensors")
        self.assertEqual((part["0.weight"].dtype, part["2.weight"].dtype), (torch.uint8, torch.float32))

    def test_a_file_without_a_graph_points_here(self) -> None:
        save_file({"fc.weight": torch.zeros(4, 4)}, self.root / "m.safetensors")
        done = subprocess.run([os.environ["TRIT_COMMAND"], "run", self.root / "m.safetensors", "--input", "x", "--output",
                               self.root / "y"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("docs/quickstart.md", done.stderr)
        self.assertIn('"nodes": [{"op": "input"}', done.stderr)


if __name__ == "__main__":
    unittest.main()
