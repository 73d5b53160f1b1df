# SPDX-License-Identifier: MIT
"""What the tests against the readers of other projects share: random matrices, the stored form, running the command.

Packages that cannot be imported fail these tests: requirements.txt names them all.
"""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy
from safetensors.numpy import save_file

SEED = 20240610


def call(*arguments, expect: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run([os.environ["TRIT_COMMAND"], *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != expect:
        raise AssertionError(f"trit {arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def trit(*arguments, expect: int = 0) -> str:
    return call(*arguments, expect=expect).stdout


def refusal(*arguments) -> str:
    """What the command says of arguments that it fails for."""
    return call(*arguments, expect=1).stderr


def pack_rows(t: numpy.ndarray) -> numpy.ndarray:
    """rows-2bit: two's complement, four columns a byte, low bits first."""
    rows, columns = t.shape
    padded = numpy.zeros((rows, (columns + 3) // 4 * 4), numpy.uint8)
    padded[:, :columns] = t.astype(numpy.int8).view(numpy.uint8) & 3
    fields = padded.reshape(rows, -1, 4)
    return fields[..., 0] | fields[..., 1] << 2 | fields[..., 2] << 4 | fields[..., 3] << 6


def save_own(path: Path, matrices: dict, others: dict, graph: dict | None = None, config: dict | None = None,
             group: int = 0) -> None:
    """Stored form: name -> (t, scale), with a scale for each `group` inputs; `config` is the config.json that the model
    came with."""
    tensors = dict(others)
    metadata = {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply"}
    for name, (t, scale) in matrices.items():
        tensors[name] = pack_rows(t)
        tensors[name + "_scale"] = scale if group else numpy.atleast_1d(numpy.asarray(scale, numpy.float32))
        metadata[f"trit.in_features.{name}"] = str(t.shape[1])
    if group:
        metadata["trit.group"] = str(group)
    if graph:
        metadata["trit.model"] = json.dumps(graph)
    if config:
        metadata["huggingface.config"] = json.dumps(config)
    save_file(tensors, path, metadata)


class Folder(unittest.TestCase):
    """Each test has a folder of its own, self.root, and a generator, self.random."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.random = numpy.random.default_rng(SEED)

    def ternary(self, rows: int, columns: int) -> numpy.ndarray:
        return self.random.integers(-1, 2, (rows, columns)).astype(numpy.int8)
