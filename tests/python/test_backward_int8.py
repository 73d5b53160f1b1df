# SPDX-License-Identifier: MIT
"""Gradients in 8 bits: the definition (include/trit/gradient.h), the bits of the C++ library, layers."""

import copy
import pickle
import random

import pytest
import reference
import torch

import trit
from trit import ops
from trit.nn import BitLinear

TYPES = [torch.float32, torch.bfloat16, torch.float16]
KINDS = ["int8_input", "int8_all"]


def random_case():
    """grad [M, N], q, scale, codes, weight_scale [1] or [N], K; now and then values that are not finite."""
    tokens, out_features = random.choice([0, 1, 2, 7, 33, 130]), random.choice([1, 2, 31, 33, 64, 100, 300])
    in_features = random.choice([1, 3, 5, 22, 63, 64, 257])
    grad = torch.randn(tokens, out_features) * 10 ** random.uniform(-6, 2)
    kind = random.randrange(6)
    if kind == 0 and tokens:
        grad[random.randrange(tokens), random.randrange(out_features)] = random.choice([float("nan"), float("inf")])
    elif kind == 1:
        grad[: tokens // 2] = 0
    elif kind == 2:
        grad *= 1e-38
    weight = torch.randn(out_features, in_features)
    quantised = ops.norm_quant(torch.randn(tokens, in_features))
    beta = ops.absmean(weight, per_row=random.random() < 0.5)
    return (grad.to(random.choice(TYPES)), quantised.q, quantised.scale, ops.ternarize_pack(weight, beta), beta, in_features,
            random.choice(TYPES))


def codes_of(v):
    """v [rows, ...] in int8 with a scale per row, rounded to nearest."""
    largest = v.abs().amax(1) if v.shape[1] else torch.zeros(len(v))
    bad = ~largest.isfinite()
    a = largest.clamp(min=2.0 ** -100)
    g = (v * (torch.tensor(127.0) / a).unsqueeze(1)).round().clamp(-127, 127)
    g[bad] = 0
    scale = a / torch.tensor(127.0)
    scale[bad] = float("nan")
    return g, scale


def defined(grad, q, scale, codes, beta, in_features, weight_dtype):
    """include/trit/gradient.h in torch operations; sums of small integers are exact in float64."""
    t, rows = reference.unpacked(codes, in_features), grad.float()
    g, a = codes_of(rows if len(beta) == 1 else rows * beta)
    grad_x = (g.double() @ t.double()).float() * a.unsqueeze(1) * (beta if len(beta) == 1 else torch.ones(1))
    g, a = codes_of((rows * scale.unsqueeze(1)).T)
    grad_weight = (g.double() @ q[:, :in_features].double()).float() * a.unsqueeze(1)
    return grad_x.to(grad.dtype), grad_weight.to(weight_dtype)


def unsigned(tensor):
    """Without signs of zeros: sums of integers have none."""
    return tensor + 0


def test_definition():
    for _ in range(200):
        case = random_case()
        want = defined(*case)
        for a, b in zip(ops.linear_backward_int8(*case), want, strict=True):
            assert reference.bits_equal(unsigned(a), unsigned(b)), [list(t.shape) for t in case[:5]]


def test_strides():
    """q by columns, and one row of it for all tokens. Of one token or output, oneDNN must not take the strides for lengths."""
    for tokens, in_features, out_features in [(1, 40, 30), (40, 30, 1), (40, 30, 7), (1, 1, 1)]:
        weight = torch.randn(out_features, in_features)
        beta = ops.absmean(weight)
        codes = ops.ternarize_pack(weight, beta)
        q, scale, _, _ = ops.norm_quant(torch.randn(tokens, in_features))
        for strange in (q.T.contiguous().T, q[:1].expand(q.shape)):
            case = (torch.randn(tokens, out_features), strange, scale, codes, beta, in_features, torch.float32)
            for a, b in zip(ops.linear_backward_int8(*case), defined(*case), strict=True):
                assert reference.bits_equal(unsigned(a), unsigned(b)), (tokens, in_features, out_features, strange.stride())


def test_cpp_library(cpp_ops):
    """The bits of libtrit_torch's operators: products, and whole layers."""
    for i in range(200):
        case = random_case()
        rounding = None
        if i % 2:
            # What the C++ operator draws, where the offset is 0.
            torch.manual_seed(i)
            rounding = torch.cat([torch.empty(1, dtype=torch.int64).random_(-2 ** 63, None), torch.zeros(1, dtype=torch.int64)])
            torch.manual_seed(i)
        theirs = cpp_ops.linear_backward_int8(*case, [True, True], rounding is not None)
        for a, b in zip(ops.linear_backward_int8(*case, rounding=rounding), theirs, strict=True):
            assert reference.bits_equal(a, b), (i, [list(t.shape) for t in case[:5]])


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_layers_of_cpp(cpp_ops, kind):
    for _ in range(60):
        shape = random.choice([(5,), (1, 30), (33, 64), (2, 3, 22), (0, 7)])
        dtype, rms, per_row = random.choice(TYPES), random.random() < 0.6, random.random() < 0.5
        x = (torch.randn(shape) * 3).to(dtype)
        weight = torch.randn(random.choice([1, 9, 33, 70]), shape[-1]).to(random.choice(TYPES))
        bias = torch.randn(len(weight)) if random.random() < 0.5 else None
        norm_weight = torch.rand(shape[-1]) + 0.5 if rms and random.random() < 0.7 else None
        grad = torch.randn(*shape[:-1], len(weight)).to(dtype)
        wanted = [random.random() < 0.8 for _ in range(4)]
        wanted[random.randrange(2)] = True
        results = []
        for call in (lambda *a: ops.bit_linear(*a, rms=rms, per_row=per_row, backward=kind),
                     lambda *a: cpp_ops.bit_linear(*a, rms, 1e-6, per_row, kind)):
            leaves = [None if t is None else t.clone().requires_grad_(w)
                      for t, w in zip((x, weight, bias, norm_weight), wanted, strict=True)]
            call(*leaves).backward(grad)
            results.append([None if t is None else t.grad for t in leaves])
        for name, a, b in zip(("x", "weight", "bias", "norm_weight"), *results, strict=True):
            assert (a is None) == (b is None), name
            assert a is None or reference.bits_equal(a, b), (name, shape, dtype)


def test_many_tokens(cpp_ops):
    """More than int32 sums hold: dW in parts."""
    tokens = (1 << 17) + 75
    weight = torch.randn(3, 6)
    beta = ops.absmean(weight)
    quantised = ops.norm_quant(torch.randn(tokens, 6))
    grad = torch.randn(tokens, 3)
    case = (grad, quantised.q, quantised.scale, ops.ternarize_pack(weight, beta), beta, 6, torch.float32)
    for a, b in zip(ops.linear_backward_int8(*case), cpp_ops.linear_backward_int8(*case, [True, True], False), strict=True):
        assert reference.bits_equal(a, b)


def gradients(x, weight, grad, **options):
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    ops.bit_linear(*leaves, **options).backward(grad)
    return [leaf.grad for leaf in leaves]


def test_kinds():
    """Which products take int8, and how far they are from the exact ones."""
    x, weight, grad = torch.randn(64, 256), torch.randn(128, 256), torch.randn(64, 128)
    exact, of_input, of_all = (gradients(x, weight, grad, backward=kind) for kind in ("exact", *KINDS))
    assert torch.equal(of_input[0], of_all[0]) and torch.equal(of_input[1], exact[1])
    for found, want in ((of_all[0], exact[0]), (of_all[1], exact[1])):
        assert 1e-4 < (found - want).norm() / want.norm() < 0.015
    bad = grad.clone()
    bad[5, 7] = float("nan")
    grad_x, grad_weight = gradients(x, weight, bad, backward="int8_all")
    assert grad_x[5].isnan().all() and grad_x.isnan().sum() == 256
    assert grad_weight[7].isnan().all() and grad_weight.isnan().sum() == 256


def test_stochastic_rounding():
    x, weight, grad = torch.randn(16, 64), torch.randn(32, 64), torch.randn(16, 32)
    options = {"backward": "int8_all", "stochastic_rounding": True}

    def seeded(seed):
        torch.manual_seed(seed)
        return gradients(x, weight, grad, **options)

    first, again, other = seeded(1), seeded(1), seeded(2)
    more = gradients(x, weight, grad, **options)
    for a, b, c, d in zip(first, again, other, more, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(c, d)
    exact = gradients(x, weight, grad, backward="exact")
    nearest = gradients(x, weight, grad, backward="int8_all")
    sums = [torch.zeros_like(g) for g in exact]
    for _ in range(400):
        for total, found in zip(sums, gradients(x, weight, grad, **options), strict=True):
            total += found
    # The mean of 400 errs by a twentieth of one; rounding to nearest errs in the same way each time.
    for name, total, one, near, want in zip("xw", sums, first, nearest, exact, strict=True):
        errors = [float((g - want).norm() / want.norm()) for g in (total / 400, one, near)]
        assert errors[0] < 0.1 * errors[1] and errors[0] < 0.2 * errors[2], (name, errors)


def test_layer():
    layer = BitLinear(40, 20, backward="int8_all", stochastic_rounding=True)
    assert "scale=tensor, backward=int8_all, stochastic_rounding\n" in repr(layer)
    assert "backward" not in repr(BitLinear(40, 20))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (twin.backward, twin.stochastic_rounding) == ("int8_all", True)
    # Pickled by a version before the option.
    state = copy.deepcopy(BitLinear(40, 20)).__dict__
    del state["_backward"], state["stochastic_rounding"]
    old = BitLinear.__new__(BitLinear)
    old.__setstate__(state)
    assert (old.backward, old.stochastic_rounding) == ("exact", False)
    x, grad = torch.randn(8, 40), torch.randn(8, 20)
    layer.stochastic_rounding = False
    found = {}
    for kind in ("exact", *KINDS):
        layer.backward = kind
        layer.zero_grad()
        layer(x).backward(grad)
        found[kind] = layer.weight.grad
    assert torch.equal(found["int8_input"], found["exact"]) and not torch.equal(found["int8_all"], found["exact"])


def test_conversions():
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Linear(6, 4))
    twin = copy.deepcopy(model)
    trit.convert(model, backward="int8_input", stochastic_rounding=True)
    assert [(layer.backward, layer.stochastic_rounding) for layer in model] == [("int8_input", True)] * 2
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(twin, trit.TritConfig(backward="int8_all"))
    assert [(layer.backward, layer.stochastic_rounding) for layer in twin] == [("int8_all", False)] * 2


def test_errors():
    x, weight = torch.randn(2, 64), torch.randn(4, 64)
    layer = BitLinear(64, 4, backward="int8_all")
    grouped = BitLinear(64, 4, scale="group:32")
    wanted = "'int8_all' with weight scales for groups of 32 inputs, wanted 'exact', or one scale per tensor or row"
    for call in (lambda: BitLinear(64, 4, scale="group:32", backward="int8_all"), lambda: setattr(layer, "scale", "group:32"),
                 lambda: setattr(grouped, "backward", "int8_all"),
                 lambda: ops.bit_linear(x, weight, group=32, backward="int8_all")):
        with pytest.raises(ValueError, match=wanted):
            call()
    assert layer.scale == "tensor" and grouped.backward == "exact"
    for call in (lambda: BitLinear(64, 4, backward="int8"), lambda: setattr(layer, "backward", True),
                 lambda: ops.bit_linear(x, weight, backward="int4")):
        with pytest.raises(ValueError, match="wanted 'exact', 'int8_input' or 'int8_all'"):
            call()
    quantised = ops.norm_quant(x)
    beta = ops.absmean(weight)
    codes = ops.ternarize_pack(weight, beta)
    case = (torch.randn(2, 4), quantised.q, quantised.scale, codes, beta, 64)
    with pytest.raises(RuntimeError, match=r"grad must be \[tokens, 4\], found Float \[2, 5\]"):
        ops.linear_backward_int8(torch.randn(2, 5), *case[1:])
    with pytest.raises(RuntimeError, match="wanted as many rows in both"):
        ops.linear_backward_int8(torch.randn(3, 4), *case[1:])
    with pytest.raises(RuntimeError, match=r"weight's scale must be \[1\] or \[4\], found Float \[4, 2\]"):
        ops.linear_backward_int8(*case[:4], ops.absmean(weight, group=32), 64)
    for rounding in (torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)[::2]):
        with pytest.raises(RuntimeError, match=r"rounding must be contiguous int64 \[2\], seed and offset"):
            ops.linear_backward_int8(*case, rounding=rounding)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind):
    torch.compiler.reset()
    model = torch.nn.Sequential(BitLinear(24, 40, backward=kind), torch.nn.ReLU(), BitLinear(40, 8, backward=kind, scale="row"))
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, dynamic=True)
    for tokens in (3, 8, 17):
        x = torch.randn(tokens, 24)
        inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
        for call, own in ((model, inputs[0]), (compiled, inputs[1])):
            call(own).square().sum().backward()
        assert torch.allclose(inputs[0].grad, inputs[1].grad, rtol=1e-3, atol=1e-3)
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-3), name


def test_compiled_stochastic_rounding():
    """Each call draws its own random numbers, from torch's generator."""
    torch.compiler.reset()
    layer = BitLinear(24, 40, backward="int8_all", stochastic_rounding=True)
    compiled = torch.compile(layer, fullgraph=True)
    x, grad = torch.randn(9, 24), torch.randn(9, 40)

    def call():
        layer.zero_grad()
        compiled(x).backward(grad)
        return layer.weight.grad

    call()
    torch.manual_seed(5)
    found = [call() for _ in range(3)]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
    torch.manual_seed(5)
    assert torch.equal(call(), found[0])
