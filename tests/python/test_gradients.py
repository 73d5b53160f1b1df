# SPDX-License-Identifier: MIT
"""Gradients against autograd of the plain formula, and what autograd needs of a layer."""

import pytest
import reference
import torch

from trit import ops
from trit.nn import BitLinear


def rounded(x, weight, norm_weight, rms, eps, per_row):
    """x and W as the layer rounds them."""
    quantised = ops.norm_quant(x.detach().reshape(-1, x.shape[-1]), norm_weight, rms=rms, eps=eps)
    inputs = quantised.q[:, : x.shape[-1]].float() * quantised.scale.unsqueeze(1)
    beta = ops.absmean(weight.detach(), per_row=per_row)
    return inputs.reshape(x.shape), ops.dequantize(ops.ternarize_pack(weight.detach(), beta), beta, weight.shape[1])


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("shape", [(1, 5), (40, 600), (2, 3, 257), (64,)])
def test_gradients(shape, rms, per_row):
    in_features, out_features, eps = shape[-1], 33, 1e-6
    x, weight, bias = torch.randn(shape) * 3, torch.randn(out_features, in_features), torch.randn(out_features)
    norm_weight = torch.rand(in_features) + 0.5 if rms else None
    grad = torch.randn(*shape[:-1], out_features)
    exact = tuple(t.double() for t in rounded(x, weight, norm_weight, rms, eps, per_row))
    reference.assert_gradients(lambda *values: ops.bit_linear(*values, rms=rms, eps=eps, per_row=per_row),
                               lambda *values: reference.plain_layer(*values, rms, eps, per_row, exact),
                               (x, weight, bias, norm_weight), grad)


def test_rms_norm():
    x = torch.randn(7, 33, requires_grad=True)
    g = (torch.rand(33) + 0.5).requires_grad_()
    xd, gd = x.detach().double().requires_grad_(), g.detach().double().requires_grad_()
    grad = torch.randn(7, 33)
    y = ops.rms_norm(x, g)
    want = torch.nn.functional.rms_norm(xd, (33,), gd, 1e-6)
    y.backward(grad)
    want.backward(grad.double())
    for a, b in ((y, want), (x.grad, xd.grad), (g.grad, gd.grad)):
        assert torch.allclose(a.double(), b, rtol=1e-5, atol=1e-5)


def test_only_wanted_gradients():
    x, weight = torch.randn(5, 8), torch.randn(3, 8, requires_grad=True)
    ops.bit_linear(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None
    x.requires_grad_()
    ops.bit_linear(x, weight.detach()).sum().backward()
    assert x.grad is not None


def test_saved_bytes():
    """q at a byte an activation and the weight at 2 bits are saved; x by reference."""
    tokens, inputs, outputs = 128, 4096, 512
    layer = BitLinear(inputs, outputs, bias=False)
    x = torch.randn(tokens, inputs, requires_grad=True)
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    want = 4 * tokens * inputs + 4 * inputs + tokens * inputs + outputs * inputs // 4 + 8 * tokens + 4
    assert sum(saved.values()) == want


def test_double_backward_is_an_error():
    x = torch.randn(3, 8, requires_grad=True)
    weight = torch.randn(4, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.bit_linear(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    layer = BitLinear(64, 32)
    x = torch.randn(5, 64, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y = layer(x)
    assert y.dtype == dtype
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32 and x.grad.dtype == torch.float32
    assert torch.equal(y, ops.bit_linear(x.to(dtype), layer.weight, layer.bias, layer.norm.weight))


def test_checkpointing_and_threads():
    layer = BitLinear(32, 32)
    x = torch.randn(4, 32, requires_grad=True)
    layer(x).square().sum().backward()
    want = layer.weight.grad.clone()
    layer.weight.grad = None
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    assert torch.equal(layer.weight.grad, want)
