# SPDX-License-Identifier: MIT
"""Layers with group scales: bits, gradients, layers, files."""

import copy
import json
import pickle
import random
import subprocess

import pytest
import reference
import torch
from safetensors.torch import save_file

import trit
from trit import ops
from trit.nn import BitLinear, PackedBitLinear

GRAPH = {"input": {"shape": [150]},
         "nodes": [{"op": "input"},
                   {"op": "bit_linear", "name": "fc1", "inputs": [0], "norm": "rms"},
                   {"op": "relu", "inputs": [1]},
                   {"op": "bit_linear", "name": "fc2", "inputs": [2], "norm": "none"}]}


def network(scale="group:64"):
    net = torch.nn.Sequential()
    net.add_module("fc1", BitLinear(150, 70, scale=scale))
    net.add_module("relu", torch.nn.ReLU())
    net.add_module("fc2", BitLinear(70, 5, bias=False, norm="none", scale=scale))
    torch.nn.init.uniform_(net.fc1.norm.weight, 0.5, 1.5)
    return net


def test_golden_case():
    """The small case of docs/numerics.md, groups of 128."""
    x, weight, bias, g = reference.golden_case()
    text = reference.words
    beta = ops.absmean(weight, group=128)
    assert text(beta[0]) == "3d7c3960 3d602bb0 3d8f9ff8 3d6c1f70 3d7c8f74"
    assert text(beta[4]) == "3d876068 3d7e6410 3d794750 3d80d360 3d719c46"
    y = ops.bit_linear(x, weight, bias, g, group=128)
    assert text(y[0]) == "3f744ba4 be87f430 bec5dcb9 bef033b5 3f8f0318"
    assert text(y[1]) == "bf808294 3efd337a 3f8b2ced c01df506 beb335da"
    assert text(y[2]) == "be5d64ce bf1ff062 bffb5622 bfe0d028 bf720e36"


def random_layer():
    """x, weight [N, K], group; groups of extreme scales, all zero, of one value."""
    tokens, out_features = random.choice([0, 1, 2, 7, 33]), random.choice([1, 2, 33, 64, 65])
    in_features, group = random.choice([1, 5, 64, 127, 257, 600]), 32 * random.randint(1, 5)
    weight = torch.randn(out_features, in_features)
    for first in range(0, in_features, group):
        weight[:, first:first + group] *= random.choice([0, 1, 1, 1e-7, 1e-3, 1e7])
    x = torch.randn(tokens, in_features) * 10 ** random.uniform(-4, 4)
    return x.to(random.choice([torch.float32, torch.bfloat16, torch.float16])), weight, group


def test_cpp_library(cpp_ops):
    """The bits of libtrit_torch's operators, whose tests compare them with the definition."""
    for _ in range(100):
        x, weight, group = random_layer()
        arguments = (x, weight, None, None, True, 1e-6, False, group)
        ours = reference.train_parts(torch.ops.trit_stable.bit_linear_train(*arguments))
        theirs = cpp_ops.bit_linear_train(*arguments)
        for name, a, b in zip(reference.TRAIN_PARTS, ours, theirs, strict=True):
            assert reference.bits_equal(a, b), name
        y, q, scale, _, codes, beta = ours
        grad = torch.randn(len(x), len(codes)).to(x.dtype)
        assert reference.bits_equal(ops.linear_backward_input(grad, codes, beta, weight.shape[1], group),
                                    cpp_ops.linear_backward_input(grad, codes, beta, weight.shape[1], group))
        quantised = ops.norm_quant(x)
        prepared = ops.prepare(codes, weight.shape[1], beta, group)
        assert reference.bits_equal(ops.prepared_linear(quantised, prepared, beta, len(codes), weight.shape[1], None,
                                                        x.dtype, group), y)
        assert reference.bits_equal(ops.packed_linear(quantised, codes, beta, weight.shape[1], None, x.dtype, group), y)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize(("shape", "group"), [((1, 5), 32), ((40, 600), 128), ((2, 3, 257), 96), ((64,), 64)])
def test_gradients(shape, rms, group):
    in_features, out_features, eps = shape[-1], 33, 1e-6
    x, weight, bias = torch.randn(shape) * 3, torch.randn(out_features, in_features), torch.randn(out_features)
    weight[:, ::7] = 0
    norm_weight = torch.rand(in_features) + 0.5 if rms else None
    grad = torch.randn(*shape[:-1], out_features)
    quantised = ops.norm_quant(x.reshape(-1, in_features), norm_weight, rms=rms, eps=eps)
    inputs = (quantised.q[:, :in_features].double() * quantised.scale.double().unsqueeze(1)).reshape(shape)
    beta = ops.absmean(weight, group=group)
    codes = ops.ternarize_pack(weight, beta, group)
    t = ops.dequantize(codes, beta, in_features, group=group).double()
    # Each group by itself; a weight at the border of two codes may become either.
    for first, part in zip(range(0, in_features, group), weight.double().split(group, 1), strict=True):
        mean = part.abs().mean(1, keepdim=True)
        plain = (part / mean).round().clamp(-1, 1) * mean
        assert int(((plain - t[:, first:first + group]).abs() > 1e-5 * mean).sum()) <= 1
    reference.assert_gradients(lambda *values: ops.bit_linear(*values, rms=rms, eps=eps, group=group),
                               lambda *values: reference.plain_layer(*values, rms, eps, False, (inputs, t)),
                               (x, weight, bias, norm_weight), grad)


def test_layer():
    net = network()
    assert net.fc1.group == 64 and "scale=group:64" in repr(net.fc1)
    x = torch.randn(9, 150)
    for dtype in (torch.float32, torch.bfloat16):
        want = net(x.to(dtype))
        frozen = trit.freeze(copy.deepcopy(net))
        assert isinstance(frozen.fc1, PackedBitLinear) and frozen.fc1.scale == "group:64"
        for model in (frozen, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), pickle.loads(pickle.dumps(frozen))):
            assert reference.bits_equal(model(x.to(dtype)), want)
    again = network()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), net(x))
    packed = trit.freeze(network())
    packed.load_state_dict(trit.pack(net))
    assert torch.equal(packed(x), net(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        trit.freeze(network("group:32")).load_state_dict(trit.pack(net))
    trit.set_lambda(again, 0.9999999)
    assert torch.allclose(again(x), net(x), atol=1e-3)
    for bad in ("group", "group:", "group:16", "group:33", "group:-32", "group:0", "group:³²", "rows:32",
                f"group:{(1 << 30) + 32}"):
        with pytest.raises(ValueError, match="multiple of 32"):
            BitLinear(5, 3, scale=bad)
    assert BitLinear(64, 3, scale="group:32", device="meta")(torch.empty(2, 64, device="meta")).shape == (2, 3)


def test_convert_and_torchao():
    model = torch.nn.Sequential(torch.nn.Linear(100, 30), torch.nn.Linear(30, 4))
    twin = copy.deepcopy(model)
    trit.convert(model, scale="group:32")
    assert [layer.scale for layer in model] == ["group:32"] * 2
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(twin, trit.TritConfig(scale="group:32", packed=True))
    x = torch.randn(5, 100)
    assert torch.equal(twin(x), model(x))


def test_files(tmp_path):
    net = network()
    path = tmp_path / "model.safetensors"
    trit.save(net, path, GRAPH)
    stored = trit.load(path)
    assert stored.metadata["trit.group"] == "64" and stored.tensors["fc1.weight_scale"].shape == (70, 3)
    x = torch.randn(4, 150)
    want = net(x)
    plain = torch.nn.Sequential()
    plain.add_module("fc1", torch.nn.Linear(150, 70))
    plain.add_module("relu", torch.nn.ReLU())
    plain.add_module("fc2", torch.nn.Linear(70, 5, bias=False))
    for model in (plain, network(), network("tensor")):
        trit.load_into(model, path)
        assert model.fc1.scale == "group:64" and torch.equal(model(x), want)
    trit.save(plain, tmp_path / "again.safetensors", GRAPH)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    # Scales in float16, as converted models have them.
    tensors = {key: value.half().float() if key.endswith("_scale") else value for key, value in stored.tensors.items()}
    halves = {key: value.half() if key.endswith("_scale") else value for key, value in tensors.items()}
    metadata = {key: value for key, value in stored.metadata.items() if key != "trit.crc32c"}
    save_file(tensors, tmp_path / "float.safetensors", metadata)
    save_file(halves, tmp_path / "half.safetensors", metadata)
    models = [trit.load_into(network(), tmp_path / f"{name}.safetensors") for name in ("float", "half")]
    assert torch.equal(models[0](x), models[1](x))
    # One size of groups in a file.
    net.fc2.scale = "group:32"
    with pytest.raises(ValueError, match="'fc2'.*groups of 32 inputs, wanted 64 as 'fc1' has"):
        trit.save(net, path)
    net.fc2.scale = "row"
    trit.save(net, path, GRAPH)
    assert torch.equal(trit.load_into(network(), path)(x), net(x))
    per_group = copy.deepcopy(GRAPH)
    per_group["nodes"][1]["token_scale"] = "group"
    with pytest.raises(ValueError, match="token_scale 'group'"):
        trit.save(net, path, per_group)
    for group in ("", "16", "x"):
        save_file(tensors, tmp_path / "bad.safetensors", {**metadata, "trit.group": group})
        with pytest.raises(ValueError, match="trit.group"):
            trit.load(tmp_path / "bad.safetensors")


def test_command(tmp_path, trit_command):
    """`trit run` gives the layer's bits, and `trit pack --scale group:64` the same file contents."""
    net = network()
    path = tmp_path / "model.safetensors"
    trit.save(net, path, GRAPH)
    x = torch.randn(9, 150)
    y = reference.run_command(trit_command, path, x, tmp_path)
    assert reference.bits_equal(y.reshape(9, 5), net(x).detach())
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "float.safetensors",
              {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply", "trit.model": json.dumps(GRAPH)})
    subprocess.run([trit_command, "pack", tmp_path / "float.safetensors", tmp_path / "packed.safetensors", "--scale",
                    "group:64"], check=True, capture_output=True)
    theirs, ours = trit.load(tmp_path / "packed.safetensors"), trit.load(path)
    assert theirs.metadata["trit.group"] == "64" and sorted(ours.tensors) == sorted(theirs.tensors)
    for name, tensor in ours.tensors.items():
        assert reference.bits_equal(tensor, theirs.tensors[name].to(tensor.dtype)), name
    assert torch.equal(trit.load_into(network(), tmp_path / "packed.safetensors")(x), net(x))


def test_errors():
    weight = torch.randn(8, 64)
    beta = ops.absmean(weight, group=32)
    codes = ops.ternarize_pack(weight, beta, 32)
    with pytest.raises(RuntimeError, match=r"\[8, 1\] for groups of 64"):
        ops.dequantize(codes, beta, 64, group=64)
    with pytest.raises(RuntimeError, match="multiple of 32"):
        ops.absmean(weight, group=40)
    with pytest.raises(RuntimeError, match="wanted weight_scale"):
        ops.prepare(codes, 64, group=32)
    quantised = ops.norm_quant(torch.randn(2, 64))
    with pytest.raises(RuntimeError, match="wanted groups of 64"):
        ops.prepared_linear(quantised, ops.prepare(codes, 64, beta, 32), beta, 8, 64, group=64)
    layer = BitLinear(64, 8, scale="group:32")
    with pytest.raises(RuntimeError, match="size mismatch"):
        trit.freeze(layer).load_state_dict(trit.pack(BitLinear(64, 8, scale="row")))
