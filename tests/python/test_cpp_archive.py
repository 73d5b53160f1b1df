# SPDX-License-Identifier: MIT
"""State dicts between trit::nn::BitLinear and trit.nn.BitLinear: the same keys, the same bits from the layer."""

import os
import subprocess

import pytest
import reference
import torch

from trit.nn import BitLinear


@pytest.fixture
def program() -> str:
    path = os.environ.get("TRIT_CPP_ARCHIVE")
    if not path:
        pytest.skip("TRIT_CPP_ARCHIVE is not set: there is no C++ module to exchange state dicts with")
    return path


def input() -> torch.Tensor:
    """As in cpp_archive.cpp."""
    return (torch.arange(150.0).remainder(17) - 8).reshape(5, 30)


def run(program, mode, file) -> torch.Tensor:
    """What the C++ layer gives for input()."""
    output = file.with_suffix(".output")
    done = subprocess.run([program, mode, file, output], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (value,) = torch.jit.load(output).state_dict().values()
    return value


def test_from_cpp(program, tmp_path):
    want = run(program, "write", tmp_path / "layer.pt")
    state = torch.jit.load(tmp_path / "layer.pt").state_dict()
    layer = BitLinear(30, 7, scale="row")
    assert list(state) == list(layer.state_dict())
    layer.load_state_dict(state)
    assert reference.bits_equal(layer(input()).detach(), want)


def test_to_cpp(program, tmp_path):
    layer = BitLinear(30, 7, scale="row")
    torch.nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
    holder, norm = torch.nn.Module(), torch.nn.Module()
    holder.weight, holder.bias, norm.weight = layer.weight, layer.bias, layer.norm.weight
    holder.norm = norm
    torch.jit.script(holder).save(tmp_path / "layer.pt")
    assert reference.bits_equal(run(program, "read", tmp_path / "layer.pt"), layer(input()).detach())
