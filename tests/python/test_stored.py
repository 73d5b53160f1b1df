# SPDX-License-Identifier: MIT
"""trit.pack, trit.save, trit.load, trit.load_into: the stored form, against the C++ command."""

import json
import pathlib
import stat
import struct
import subprocess

import pytest
import reference
import torch
from safetensors.torch import save_file

import trit
from trit.nn import BitLinear, PackedBitLinear

GRAPH = {"input": {"shape": [30]},
         "nodes": [{"op": "input"},
                   {"op": "bit_linear", "name": "fc1", "inputs": [0], "norm": "rms", "eps": 1e-5},
                   {"op": "relu", "inputs": [1]},
                   {"op": "bit_linear", "name": "fc2", "inputs": [2], "norm": "none"}]}


def network():
    net = torch.nn.Sequential()
    net.add_module("fc1", BitLinear(30, 22, eps=1e-5, scale="row"))
    net.add_module("relu", torch.nn.ReLU())
    net.add_module("fc2", BitLinear(22, 5, bias=False, norm="none"))
    torch.nn.init.uniform_(net.fc1.norm.weight, 0.5, 1.5)
    return net


def test_command_reads_and_runs_it(tmp_path, trit_command):
    net = network()
    path = tmp_path / "model.safetensors"
    trit.save(net, path, GRAPH, {"note": "a test: ü"})
    info = json.loads(subprocess.run([trit_command, "info", path, "--json"], capture_output=True, check=True).stdout)
    assert "fc1" in json.dumps(info)
    x = torch.randn(9, 30)
    y = reference.run_command(trit_command, path, x, tmp_path)
    assert reference.bits_equal(y.reshape(9, 5), net(x).detach())


def test_command_writes_the_same(tmp_path, trit_command):
    """Codes, scales and checksum of `trit pack` from the float tensors."""
    net = network()
    net.fc1.scale = "tensor"
    tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
    metadata = {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply", "trit.model": json.dumps(GRAPH)}
    save_file(tensors, tmp_path / "float.safetensors", metadata)
    subprocess.run([trit_command, "pack", tmp_path / "float.safetensors", tmp_path / "packed.safetensors"], check=True,
                   capture_output=True)
    theirs = trit.load(tmp_path / "packed.safetensors")
    trit.save(net, tmp_path / "ours.safetensors", GRAPH)
    ours = trit.load(tmp_path / "ours.safetensors")
    assert sorted(ours.tensors) == sorted(theirs.tensors)
    for name, tensor in ours.tensors.items():
        assert reference.bits_equal(tensor, theirs.tensors[name]), name
    assert set(ours.metadata) >= {"trit.version", "trit.crc32c", "trit.model"}


def test_round_trip(tmp_path):
    net = network()
    net.add_module("bn", torch.nn.BatchNorm1d(5))
    path = tmp_path / "model.safetensors"
    trit.save(net, path)
    first = path.read_bytes()
    trit.save(net, path)
    assert path.read_bytes() == first
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    x = torch.randn(4, 30)
    net.eval()
    want = net(x)
    other = network()
    other.add_module("bn", torch.nn.BatchNorm1d(5))
    assert trit.load_into(other.eval(), path) is other
    assert isinstance(other.fc1, PackedBitLinear) and other.fc1.eps == 1e-5 and other.fc1.scale == "row"
    assert torch.equal(other(x), want)
    # A packed model is packed already.
    trit.save(other, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == first
    # A state dict of the packed model is the stored form.
    assert sorted(other.state_dict()) == sorted(trit.pack(net))


def test_into_a_float_model(tmp_path):
    net = network()
    trit.save(net, tmp_path / "model.safetensors", GRAPH)
    plain = torch.nn.Sequential()
    plain.add_module("fc1", torch.nn.Linear(30, 22))
    plain.add_module("relu", torch.nn.ReLU())
    plain.add_module("fc2", torch.nn.Linear(22, 5, bias=False))
    trit.load_into(plain, tmp_path / "model.safetensors")
    x = torch.randn(4, 30)
    assert torch.equal(plain(x), net(x))


def test_shared_and_parametrised_layers(tmp_path):
    shared, other = BitLinear(8, 8), BitLinear(8, 8)
    torch.nn.utils.parametrize.register_parametrization(other, "weight", torch.nn.Tanh())
    model = torch.nn.Sequential(shared, torch.nn.ReLU(), shared, other)
    packed = trit.pack(model)
    assert sorted(packed) == sorted(f"{i}.{key}" for i in (0, 2, 3) for key in ("weight", "weight_scale", "bias", "norm.weight"))
    trit.save(model, tmp_path / "model.safetensors")
    twin = torch.nn.Sequential(BitLinear(8, 8), torch.nn.ReLU(), BitLinear(8, 8), BitLinear(8, 8))
    trit.load_into(twin, tmp_path / "model.safetensors")
    x = torch.randn(3, 8)
    want = model(x)
    assert torch.equal(twin(x), want)
    trit.freeze(model)
    assert model[0] is model[2] and torch.equal(model(x), want)


def test_single_layer(tmp_path):
    layer = BitLinear(7, 3)
    trit.save(layer, tmp_path / "layer.safetensors")
    assert trit.load(tmp_path / "layer.safetensors").metadata["trit.in_features.weight"] == "7"
    packed = trit.load_into(BitLinear(7, 3), tmp_path / "layer.safetensors")
    x = torch.randn(2, 7)
    assert torch.equal(packed(x), layer(x))


def test_bad_models_and_files(tmp_path):
    path = tmp_path / "model.safetensors"
    net = network()
    with torch.no_grad():
        net.fc1.weight[3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"fc1.weight is nan at row 3, column 4"):
        trit.save(net, path)
    assert not list(tmp_path.iterdir())
    net = network()
    with pytest.raises(ValueError, match=r'node "fc1".*the layer \(\'rms\', 1e-05\)'):
        trit.save(net, path, {**GRAPH, "nodes": [{"op": "bit_linear", "name": "fc1", "norm": "rms"}]})
    with pytest.raises(ValueError, match='no such module'):
        trit.save(net, path, {"nodes": [{"op": "bit_linear", "name": "fc9", "norm": "rms"}]})
    with pytest.raises(ValueError, match="written by save itself"):
        trit.save(net, path, metadata={"trit.version": "2"})
    trit.save(net, path)
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    content[-1] ^= 1 if content[-1] & 3 != 1 else 3
    (tmp_path / "flipped.safetensors").write_bytes(content)
    with pytest.raises((ValueError, RuntimeError), match="corrupt|fc.*row"):
        trit.load(tmp_path / "flipped.safetensors")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="pointer: a Git LFS pointer.*git lfs pull"):
        trit.load(tmp_path / "pointer")
    (tmp_path / "page").write_text("<!DOCTYPE html>")
    with pytest.raises(ValueError, match="page: no safetensors file"):
        trit.load(tmp_path / "page")
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="no file in the stored form"):
        trit.load(tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="no such module"):
        trit.load_into(torch.nn.Sequential(), path)
    other = network()
    other.fc1 = BitLinear(31, 22)
    with pytest.raises(ValueError, match="fc1.weight is uint8"):
        trit.load_into(other, path)
    assert length % 8 == 0 and pathlib.Path(path).exists()
