# SPDX-License-Identifier: MIT
"""Every operator: the bits of the definition, those of the C++ library, opcheck."""

import hashlib
import os
import random
import subprocess
import sys

import pytest
import reference
import torch

import trit
from trit import ops

TYPES = [torch.float32, torch.bfloat16, torch.float16]


def random_layer(dtype=None, in_features=None):
    """x, weight, bias or None, norm weight or None, rms, eps, per_row of a random shape, now and then extreme."""
    tokens, out_features = random.choice([0, 1, 1, 2, 3, 7, 16, 33]), random.choice([1, 2, 31, 32, 33, 64, 65, 100])
    in_features = in_features or random.choice([1, 3, 4, 5, 22, 63, 64, 127, 255, 256, 257, 600])
    x = torch.randn(tokens, in_features) * 10 ** random.uniform(-4, 4)
    weight = torch.randn(out_features, in_features) * random.choice([1e-7, 0.02, 1, 100])
    kind = random.randrange(8)
    if kind == 0:
        x[:] = 127
        weight[:] = 1
    elif kind == 1 and tokens > 1:
        x[0, 0] = random.choice([float("nan"), float("inf")])
        x[1] = 0
    elif kind == 2:
        x = (x.sign() * torch.randint(0, 3, x.shape)) * 1e-40
    bias = torch.randn(out_features) if random.random() < 0.5 else None
    rms = random.random() < 0.7
    norm_weight = torch.rand(in_features) + 0.5 if rms and random.random() < 0.7 else None
    return (x.to(dtype or random.choice(TYPES)), weight, bias, norm_weight, rms, random.choice([1e-6, 1e-5]),
            random.random() < 0.5)


def test_definition():
    for _ in range(300):
        x, weight, bias, norm_weight, rms, eps, per_row = random_layer()
        in_features = weight.shape[1]
        found = ops.norm_quant(x, norm_weight, rms=rms, eps=eps)
        mean = x.double().square().mean(1)
        good = mean.isfinite() & (mean < 1e30)
        rstd = 1 / (mean + eps).sqrt() if rms else torch.ones_like(mean)
        assert torch.allclose(found.rstd[good].double(), rstd[good], rtol=2e-6), "rstd"
        q, s = reference.quantised(x, norm_weight, found.rstd)
        assert reference.bits_equal(found.q[:, :in_features], q) and not found.q[:, in_features:].any()
        assert reference.bits_equal(found.scale, s)
        assert torch.equal(found.q_sum, q.sum(1, dtype=torch.int32))
        beta = ops.absmean(weight, per_row=per_row)
        want = weight.double().abs().mean(1) if per_row else weight.double().abs().mean().reshape(1)
        assert torch.allclose(beta.double(), want.clamp(min=1e-5), rtol=1e-6)
        t = (weight * (torch.tensor(1.0) / beta).reshape(-1, 1)).round().clamp(-1, 1)
        codes = ops.ternarize_pack(weight, beta)
        assert torch.equal(reference.unpacked(codes, in_features), t.to(torch.int8))
        scales = beta.reshape(-1, 1)
        assert reference.bits_equal(ops.dequantize(codes, beta, in_features) + 0, t * scales + 0)
        dtype = random.choice(TYPES)
        y = reference.epilogue(q, s, t, beta, bias, dtype)
        assert reference.bits_equal(ops.packed_linear(found, codes, beta, in_features, bias, dtype), y)
        prepared = ops.prepare(codes, in_features)
        for a, b in zip(ops.pack_weight(weight, per_row=per_row), (codes, beta, prepared), strict=True):
            assert torch.equal(a, b)
        values = ops.dequantize_tokens(found.q, found.scale, in_features, dtype)
        assert reference.bits_equal(values, (q[:, :in_features].float() * s.unsqueeze(1)).to(dtype))
        assert reference.bits_equal(
            ops.prepared_linear(found, prepared, beta, len(codes), in_features, bias, dtype), y)
        y = reference.epilogue(q, s, t, beta, bias, x.dtype)
        assert reference.bits_equal(ops.bit_linear(x, weight, bias, norm_weight, rms=rms, eps=eps, per_row=per_row), y)
        assert reference.bits_equal(
            ops.bit_linear_prepared(x, prepared, beta, len(codes), in_features, bias, norm_weight, rms=rms, eps=eps), y)


def test_linear_backward_weight_float():
    """Of small integers, whose sums are exact."""
    for _ in range(30):
        tokens, outputs, inputs = random.choice([0, 1, 7, 64]), random.choice([1, 5, 40]), random.choice([1, 9, 33])
        grad, x = torch.randint(-4, 5, (tokens, outputs)).float(), torch.randint(-4, 5, (tokens, inputs)).float()
        dtype, to = random.choice(TYPES), random.choice(TYPES)
        found = ops.linear_backward_weight_float(grad.to(dtype), x.to(dtype), to)
        assert reference.bits_equal(found + 0, (grad.T @ x).to(dtype).to(to) + 0)


def test_golden_case():
    """The small case of docs/numerics.md."""
    x, weight, bias, g = reference.golden_case()
    text = reference.words
    quantised = ops.norm_quant(x, g)
    assert text(quantised.rstd) == "3ee2a72c 3ed9afa9 3edeae3c"
    assert text(quantised.scale) == "3ca5a960 3c9c0a13 3ca43659"
    assert quantised.q[0, :8].tolist() == [12, 34, -56, -2, -50, 51, 103, 16]
    assert quantised.q_sum.tolist() == [747, 191, 622]
    assert text(ops.absmean(weight)) == "3d7fca57"
    assert text(ops.absmean(weight, per_row=True)) == "3d7a536d 3d8059ae 3d807b16 3d81ad09 3d7f9cab"
    y = ops.bit_linear(x, weight, bias, g)
    assert text(y[0]) == "3f50b020 beca0948 bea00d24 bf063ba2 3f819adb"
    assert text(y[2]) == "bde6c5d8 bebfb7b4 bff671e4 bfc8959d bf38c845"
    assert text(ops.bit_linear(x, weight, None, None, rms=False)[0]) == "3ffe3fb0 bfb4be41 3faaecf9 3f09f2e8 3ff671f2"
    assert text(ops.bit_linear(x, weight, None, g, per_row=True)[0]) == "3f73ef12 bf968aae 3eab7af3 3ee22d92 3f9ae92d"


def test_cpp_library(cpp_ops):
    """Forward and backward have the bits of libtrit_torch's operators."""
    for _ in range(int(os.environ.get("TRIT_PYTHON_SHAPES", 300))):
        x, weight, bias, norm_weight, rms, eps, per_row = random_layer()
        in_features = weight.shape[1]
        ours = reference.train_parts(torch.ops.trit_stable.bit_linear_train(x, weight, bias, norm_weight, rms, eps, per_row))
        theirs = cpp_ops.bit_linear_train(x, weight, bias, norm_weight, rms, eps, per_row)
        for name, a, b in zip(reference.TRAIN_PARTS, ours, theirs, strict=True):
            assert reference.bits_equal(a, b), name
        _, q, scale, rstd, codes, beta = ours
        grad = torch.randn(len(x), len(codes)).to(x.dtype)
        assert reference.bits_equal(ops.linear_backward_input(grad, codes, beta, in_features),
                                    cpp_ops.linear_backward_input(grad, codes, beta, in_features))
        assert reference.bits_equal(ops.linear_backward_weight(grad, q, scale, in_features),
                                    cpp_ops.linear_backward_weight(grad, q, scale, in_features))
        for a, b in zip(torch.ops.trit_stable.rms_norm(x, norm_weight, eps), cpp_ops.rms_norm(x, norm_weight, eps),
                        strict=True):
            assert reference.bits_equal(a, b)
        leaves = [None if t is None else t.clone().requires_grad_() for t in (x, weight, bias, norm_weight)]
        results = []
        for call in (lambda *a: ops.bit_linear(*a, rms=rms, eps=eps, per_row=per_row),
                     lambda *a: cpp_ops.bit_linear(*a, rms, eps, per_row)):
            call(*leaves).backward(grad)
            results.append([None if t is None or t.grad is None else t.grad for t in leaves])
            for t in leaves:
                if t is not None:
                    t.grad = None
        for name, a, b in zip(("x", "weight", "bias", "norm_weight"), *results, strict=True):
            assert (a is None) == (b is None), name
            assert a is None or reference.bits_equal(a, b), name


def test_tiles(cpp_ops):
    """A weight that becomes float in several tiles."""
    weight = torch.randn(9000, 1000)
    beta = ops.absmean(weight)
    codes = ops.ternarize_pack(weight, beta)
    for dtype in TYPES:
        grad = torch.randn(3, 9000).to(dtype)
        assert reference.bits_equal(ops.linear_backward_input(grad, codes, beta, 1000),
                                    cpp_ops.linear_backward_input(grad, codes, beta, 1000))


def check_slices(device):
    """Gradients of tensors that begin inside of others, and of more dimensions: those of copies."""
    x, grad = (torch.randn(12, 5, features, device=device) for features in (64, 24))
    weight = torch.randn(24, 64, device=device)
    for kind in ("exact", "int8_all"):
        results = []
        for own_x, own_grad in ((x[4:], grad[4:]), (x[4:].clone(), grad[4:].clone()),
                                (x[4:].reshape(-1, 64).clone(), grad[4:].reshape(-1, 24).clone())):
            leaves = [own_x.detach().requires_grad_(), weight.clone().requires_grad_()]
            ops.bit_linear(*leaves, backward=kind).backward(own_grad)
            results.append([leaves[0].grad.reshape(-1, 64), leaves[1].grad])
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
    beta = ops.absmean(weight)
    codes, quantised = ops.ternarize_pack(weight, beta), ops.norm_quant(x.reshape(60, 64))
    rows, q, scale = grad.reshape(60, 24)[7:], quantised.q[7:], quantised.scale[7:]
    for call in (lambda *a: ops.linear_backward_weight(*a, 64), lambda *a: ops.linear_backward_int8(*a, codes, beta, 64)[1],
                 lambda grad, q, scale: ops.linear_backward_input(grad, codes, beta, 64)):
        assert torch.equal(call(rows, q, scale), call(rows.clone(), q.clone(), scale.clone()))


def test_slices():
    check_slices("cpu")


def check_sums(device):
    """absmean from the sums of rows that were added up in several parts."""
    for _ in range(100):
        weight = (torch.randn(random.randrange(1, 700), random.randrange(1, 700)) * 10.0 ** random.randrange(-8, 3)).to(device)
        if random.random() < 0.1:
            weight[-1, -1] = random.choice([float("nan"), float("inf"), 0.0])
        rows = [1 + random.randrange(len(weight))] if len(weight) > 1 else []
        sums = torch.cat([ops.abs_sums(part) for part in weight.tensor_split(rows) if len(part)])
        assert reference.bits_equal(ops.absmean_of_sums(sums, weight.shape[1]), ops.absmean(weight)), weight.shape


def test_sums():
    check_sums("cpu")
    with pytest.raises(RuntimeError, match="absmean_of_sums: wanted float32"):
        ops.absmean_of_sums(torch.ones(3, 2), 4)


def digest() -> str:
    """A hash of outputs and gradients of a hundred layers, from a fixed seed."""
    torch.manual_seed(7)
    random.seed(7)
    found = hashlib.sha256()
    for _ in range(100):
        x, weight, bias, norm_weight, rms, eps, per_row = random_layer()
        y = ops.bit_linear(x, weight, bias, norm_weight, rms=rms, eps=eps, per_row=per_row)
        found.update(y.nan_to_num(7).float().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("environment", [{"TRIT_BACKEND": name} for name in trit.backends() if name != "cuda"])
def test_backends_and_threads(environment):
    """Each backend in a process of its own, on one thread: the same bits."""
    run = subprocess.run([sys.executable, __file__], env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [environment["TRIT_BACKEND"], digest()]


def opcheck_calls(device="cpu"):
    namespace = torch.ops.trit_stable
    x, weight, bias, g = (t.to(device) for t in (torch.randn(6, 22), torch.randn(9, 22), torch.randn(9), torch.rand(22)))
    q, s, r, q_sum = namespace.norm_quant(x, g, True, 1e-6)
    beta = namespace.absmean(weight, False)
    codes = namespace.ternarize_pack(weight, beta)
    prepared = namespace.prepare(codes, 22)
    grad = torch.randn(6, 9, device=device)
    scales = torch.stack([s, r])
    yield "norm_quant", (x, g, True, 1e-6)
    yield "norm_quant", (x, None, False, 1e-6)
    yield "absmean", (weight, True)
    yield "absmean", (weight, False)
    yield "abs_sums", (weight,)
    yield "absmean_of_sums", (namespace.abs_sums(weight), 22)
    yield "ternarize_pack", (weight, beta)
    yield "dequantize", (codes, beta, 22, torch.bfloat16)
    yield "prepare", (codes, 22)
    yield "norm_quant", (x, g, True, 1e-6, False)
    yield "pack_weight", (weight, False)
    yield "pack_weight", (weight.bfloat16(), True)
    yield "dequantize_tokens", (q, s, 22, torch.bfloat16)
    yield "linear_backward_weight_float", (grad, x, torch.bfloat16)
    yield "linear_backward_weight_float", (grad.bfloat16(), x.bfloat16(), torch.float32)
    yield "packed_linear", (q, s, q_sum, codes, beta, 22, bias, torch.float16)
    yield "prepared_linear", (q, s, q_sum, prepared, beta, 9, 22, None, torch.float32)
    for shape in [(6, 22), (2, 3, 22), (22,), (0, 22)]:
        inputs = torch.randn(shape, device=device)
        yield "bit_linear_prepared", (inputs, prepared, beta, 9, 22, bias, g, True, 1e-6)
        yield "bit_linear_train", (inputs, weight, bias, g, True, 1e-6, False)
        yield "bit_linear_train", (inputs.bfloat16(), weight, None, None, False, 1e-6, True)
        yield "bit_linear_train_codes", (inputs, codes, beta, 22, bias, g, True, 1e-6)
    for wanted in [(True, True, True), (False, True, False), (True, False, False), (False, False, True)]:
        yield "bit_linear_backward", (grad, x, g, q, scales, codes, beta, 22, torch.float32, True, *wanted)
        yield "bit_linear_backward", (grad, None, None, q, scales, codes, beta, 22, torch.bfloat16, False, *wanted)
    yield "bit_linear_backward", (grad.reshape(2, 3, 9), x.reshape(2, 3, 22), None, q, scales, codes, beta, 22,
                                  torch.float32, True, True, True, True)
    for wanted in [(True, True, True), (False, True, False), (True, False, False), (False, False, True)]:
        for int8_weight in (False, True):
            yield "bit_linear_backward_int8", (grad, x, g, q, scales, codes, beta, 22, torch.float32, True, *wanted, int8_weight)
            yield "bit_linear_backward_int8", (grad, None, None, q, scales, codes, beta, 22, torch.bfloat16, False, *wanted,
                                               int8_weight, torch.tensor([3, 4], device=device))
    yield "bit_linear_backward_int8", (grad.reshape(2, 3, 9), x.reshape(2, 3, 22), None, q, scales, codes, beta, 22,
                                       torch.float32, True, True, True, True, True)
    for wanted in [(True, True), (True, False), (False, True), (False, False)]:
        yield "linear_backward_int8", (grad, q, s, codes, beta, 22, torch.float16, *wanted)
    yield "linear_backward_input", (grad, codes, beta, 22)
    yield "linear_backward_weight", (grad, q, s, 22, torch.float16)
    yield from opcheck_group_calls(x, grad, bias)
    yield "rms_norm", (x, g, 1e-6)
    yield "rms_norm", (x.reshape(2, 3, 22).half(), None, 1e-6)
    for wanted in [(True, True), (False, True), (True, False)]:
        yield "rms_norm_backward", (x, x, r, g, *wanted)
        yield "rms_norm_backward", (x, x, r, None, *wanted)


def opcheck_group_calls(x, grad, bias):
    """Weights [9, 22] with scales for groups of 32 and [9, 70] for groups of 64."""
    namespace = torch.ops.trit_stable
    for in_features, group in ((22, 32), (70, 64)):
        inputs, weight = (torch.randn(rows, in_features, device=x.device) for rows in (6, 9))
        q, s, r, q_sum = namespace.norm_quant(inputs, None, True, 1e-6)
        beta = namespace.absmean(weight, False, group)
        codes = namespace.ternarize_pack(weight, beta, group)
        prepared = namespace.prepare(codes, in_features, beta, group)
        yield "absmean", (weight, False, group)
        yield "ternarize_pack", (weight, beta, group)
        yield "dequantize", (codes, beta, in_features, torch.float32, group)
        yield "prepare", (codes, in_features, beta, group)
        yield "pack_weight", (weight, False, group)
        yield "packed_linear", (q, s, q_sum, codes, beta, in_features, bias, torch.bfloat16, group)
        yield "prepared_linear", (q, s, q_sum, prepared, beta, 9, in_features, bias, torch.float32, group)
        yield "bit_linear_prepared", (inputs, prepared, beta, 9, in_features, bias, None, True, 1e-6, group)
        yield "bit_linear_train", (inputs, weight, bias, None, True, 1e-6, False, group)
        yield "bit_linear_backward", (grad, inputs, None, q, torch.stack([s, r]), codes, beta, in_features, torch.float32, True, True,
                                      True, False, group)
        yield "linear_backward_input", (grad, codes, beta, in_features, group)


def test_opcheck():
    checked = set()
    for name, arguments in opcheck_calls():
        torch.library.opcheck(getattr(torch.ops.trit_stable, name).default, arguments)
        checked.add(name)
    assert checked == set(trit._fake._OPERATORS)


def test_library_is_free_of_python_and_aten():
    """No Python symbol, so one file serves every Python, and of LibTorch the stable ABI alone."""
    library = trit._library._path()
    symbols = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in symbols.stdout.splitlines()]
    assert not [name for name in names if name.startswith(("Py", "_Py"))]
    assert not [name for name in names if name.startswith(("_ZN2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch"))]
    exported = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    assert "trit" not in exported.stdout, "libtrit inside must be hidden: a process may load another one"
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "libgomp" not in needed and "libtorch_python" not in needed and "RUNPATH" not in needed


if __name__ == "__main__":
    print(trit._library.INFO.backend, digest())
