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


def tensor(file) -> torch.Tensor:
    """One that torch::save wrote."""
    (value,) = torch.jit.load(file).state_dict().values() or dict(torch.jit.load(file).named_buffers()).values()
    return value


def test_from_cpp(program, tmp_path):
    file = tmp_path / "layer.pt"
    subprocess.run([program, "write", file], check=True)
    state = torch.jit.load(file).state_dict()
    layer = BitLinear(30, 7, scale="row")
    assert list(state) == list(layer.state_dict())
    layer.load_state_dict(state)
    assert reference.bits_equal(layer(tensor(f"{file}.x")).detach(), tensor(f"{file}.y"))


def test_to_cpp(program, tmp_path):
    layer = BitLinear(30, 7, scale="row")
    torch.nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
    holder, norm = torch.nn.Module(), torch.nn.Module()
    holder.weight, holder.bias, norm.weight = layer.weight, layer.bias, layer.norm.weight
    holder.norm = norm
    torch.jit.script(holder).save(tmp_path / "layer.pt")
    x = torch.randn(6, 30)
    torch.save(x, tmp_path / "x.pt")
    subprocess.run([program, "read", tmp_path / "layer.pt", tmp_path / "x.pt", tmp_path / "y.pt"], check=True)
    assert reference.bits_equal(tensor(tmp_path / "y.pt"), layer(x).detach())
