# SPDX-License-Identifier: MIT
"""trit.nn, trit.convert, trit.set_lambda, trit.freeze: what a user of torch.nn expects of a layer."""

import copy
import io
import pickle
import warnings

import pytest
import reference
import torch

import trit
from trit.nn import BitLinear, PackedBitLinear, RMSNorm


def trained(layer):
    """The layer with a norm weight that is not all ones."""
    if layer.norm is not None:
        torch.nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
    return layer


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"norm": "none"}, {"eps": 1e-5}, {"scale": "row"}])
def test_freeze_keeps_the_bits(options):
    layer = trained(BitLinear(70, 33, **options))
    model = torch.nn.Sequential(layer, torch.nn.GELU())
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4, 9, 70, dtype=dtype)
        want = model(x)
        assert trit.freeze(copy.deepcopy(model)) is not model
        assert reference.bits_equal(trit.freeze(copy.deepcopy(model))(x), want)
    assert type(trit.freeze(layer)) is PackedBitLinear


def test_options():
    text = repr(BitLinear(5, 3, bias=False, norm="none", scale="row", eps=1e-5, lambda_=0.5))
    assert text == ("BitLinear(in_features=5, out_features=3, bias=False, norm=none, eps=1e-05, scale=row, lambda=0.5)")
    for bad in ({"norm": "layer"}, {"eps": 0.0}, {"scale": "group"}, {"lambda_": 1.5}, {"lambda_": float("nan")}):
        with pytest.raises(ValueError, match="wanted"):
            BitLinear(5, 3, **bad)
    with pytest.raises(ValueError, match="in_features >= 1"):
        BitLinear(0, 3)


def test_state_dict_of_linear_and_back():
    linear = torch.nn.Linear(12, 7)
    layer = BitLinear(12, 7)
    torch.nn.init.constant_(layer.norm.weight, 2)
    assert str(layer.load_state_dict(linear.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(layer.weight, linear.weight) and bool((layer.norm.weight == 2).all())
    assert list(layer.state_dict()) == ["weight", "bias", "norm.weight"]
    linear.load_state_dict({key: value for key, value in layer.state_dict().items() if key != "norm.weight"})
    with pytest.raises(RuntimeError, match="bias"):
        BitLinear(12, 7, bias=False).load_state_dict(linear.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        BitLinear(12, 8).load_state_dict(linear.state_dict())


@pytest.mark.parametrize("freeze", [False, True])
def test_copies(freeze):
    model = torch.nn.Sequential(trained(BitLinear(30, 20)), torch.nn.ReLU(), BitLinear(20, 5, norm="none"))
    if freeze:
        trit.freeze(model)
    x = torch.randn(6, 30)
    want = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    states = io.BytesIO()
    torch.save(model.state_dict(), states)
    assert len(states.getvalue()) < 30_000
    states.seek(0)
    again = torch.nn.Sequential(BitLinear(30, 20), torch.nn.ReLU(), BitLinear(20, 5, norm="none"))
    again = trit.freeze(again) if freeze else again
    again.load_state_dict(torch.load(states))
    for one in (*copies, again):
        assert torch.equal(one(x), want)


def test_ema_and_parametrisation():
    layer = BitLinear(16, 8)
    average = torch.optim.swa_utils.AveragedModel(layer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    average.update_parameters(layer)
    with torch.no_grad():
        layer.weight += 1
    average.update_parameters(layer)
    assert torch.allclose(average.module.weight, layer.weight - 0.5)
    x = torch.randn(3, 16)

    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return weight + weight.flip(0)

    plain = copy.deepcopy(layer)
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
    assert torch.equal(layer(x), plain(x))
    layer(x).sum().backward()
    assert layer.parametrizations.weight.original.grad is not None


def test_writes_past_the_version_counter_are_seen():
    layer = BitLinear(16, 8, bias=False)
    x = torch.randn(3, 16)
    with torch.no_grad():
        before = layer(x)
        layer.weight.data.neg_()
        assert torch.equal(layer(x), -before)


def test_lambda():
    layer = trained(BitLinear(24, 10))
    x = torch.randn(4, 24)
    model = torch.nn.Sequential(layer)
    full = model(x)
    assert trit.set_lambda(model, 0) == 1
    float_layer = torch.nn.functional.linear(layer.norm(x), layer.weight, layer.bias)
    assert torch.equal(model(x), float_layer)
    trit.set_lambda(model, 0.999999)
    assert torch.allclose(model(x), full, atol=1e-4)
    # The gradient is that of the float product of the blended operands: not half of it.
    trit.set_lambda(model, 0.5)
    inputs = x.clone().requires_grad_()
    model(inputs).sum().backward()
    quantised = trit.ops.norm_quant(x, layer.norm.weight)
    blended = (layer.norm(x) + quantised.q[:, :24] * quantised.scale.unsqueeze(1)) / 2
    assert torch.allclose(layer.weight.grad, blended.sum(0).expand(10, 24), rtol=1e-4, atol=1e-5)
    beta = trit.ops.absmean(layer.weight)
    weights = (layer.weight + trit.ops.dequantize(trit.ops.ternarize_pack(layer.weight, beta), beta, 24)) / 2
    twin = x.clone().requires_grad_()
    torch.nn.functional.linear(layer.norm(twin), weights.detach()).sum().backward()
    assert torch.allclose(inputs.grad, twin.grad, rtol=1e-4, atol=1e-5)
    model.to(torch.bfloat16)
    assert layer._lambda.dtype == torch.float32 and layer.lambda_ == 0.5
    trit.set_lambda(model, 1)
    model.float()
    with pytest.raises(ValueError, match="wanted 0 to 1"):
        trit.set_lambda(model, 2)
    copied = copy.deepcopy(model)
    assert copied[0].lambda_ == 1
    assert trit.set_lambda(torch.nn.ReLU(), 0.5) == 0


def test_convert():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(10, 8)
            self.fc1 = torch.nn.Linear(8, 16)
            self.blocks = torch.nn.ModuleList([torch.nn.Linear(16, 16, bias=False) for _ in range(2)])
            self.shared = self.fc1
            self.attention = torch.nn.MultiheadAttention(16, 2)
            self.wide = torch.nn.Linear(8, 8, dtype=torch.float64)
            self.head = torch.nn.Linear(16, 4)

    net = Net().eval()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    with pytest.warns(UserWarning, match="left in float: .*out_proj.*wide"):
        report = {c.name: c for c in trit.convert(net, lambda name, linear: name != "head", norm="none", scale="row")}
    assert {name for name, c in report.items() if c.converted} == {"fc1", "shared", "blocks.0", "blocks.1"}
    assert report["head"].reason == "refused by the filter" and "float64" in report["wide"].reason
    assert net.fc1 is net.shared and isinstance(net.fc1, BitLinear) and net.fc1.scale == "row"
    assert not net.fc1.training and net.blocks[0].bias is None
    assert {id(p) for p in net.parameters()} == held
    with pytest.warns(UserWarning, match="nothing was replaced"):
        trit.convert(torch.nn.ReLU())
    with pytest.warns(UserWarning, match="the filter refused all 1"):
        trit.convert(torch.nn.Sequential(torch.nn.Linear(2, 2)), lambda *_: False)
    assert not trit.convert(torch.nn.Linear(2, 2))[0].converted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = torch.nn.Sequential(torch.nn.Linear(4, 4))
        assert trit.convert(model)[0] == trit.Conversion("0", True)
        assert trit.convert(model) == []
    assert isinstance(model[0].norm, RMSNorm) and torch.equal(model[0].norm.weight, torch.ones(4))


def test_training_lowers_the_loss():
    data, target = torch.randn(256, 16), torch.randint(0, 4, (256,))
    target = (data @ torch.randn(16, 4)).argmax(1)
    model = torch.nn.Sequential(BitLinear(16, 64), torch.nn.ReLU(), BitLinear(64, 4))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(data), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_devices_and_types():
    packed = trit.freeze(trained(BitLinear(20, 8)))
    assert packed.bfloat16().weight_scale.dtype == torch.float32
    x = torch.randn(2, 20)
    want = packed(x)
    exact = float(packed.weight_scale)
    assert float(packed.to(torch.bfloat16).weight_scale) == exact and torch.equal(packed(x), want)
    on_meta = BitLinear(1 << 14, 1 << 14, device="meta")
    assert on_meta(torch.empty(3, 1 << 14, device="meta")).shape == (3, 1 << 14)
