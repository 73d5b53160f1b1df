# SPDX-License-Identifier: MIT
"""The GPU half: the CPU's bits, opcheck, compiled, in CUDA graphs. scripts/gpu_python.py runs it."""

import copy
import os
import random

import pytest
import reference
import test_groups
import torch
from test_backward_int8 import random_case
from test_compile import check_what_layers_share
from test_ops import check_slices, check_sums, opcheck_calls, random_layer

import trit
from trit import ops
from trit.nn import BitLinear

pytestmark = pytest.mark.gpu
SHAPES = int(os.environ.get("TRIT_PYTHON_SHAPES", 2000))


def on_gpu(values):
    return [value.cuda() if isinstance(value, torch.Tensor) else value for value in values]


def test_build():
    assert trit.backends()[-1] == "cuda"


def test_bits_of_the_cpu():
    for _ in range(SHAPES):
        layer = random_layer()
        in_features = layer[1].shape[1]
        cpu = reference.train_parts(torch.ops.trit_stable.bit_linear_train(*layer))
        gpu = reference.train_parts(torch.ops.trit_stable.bit_linear_train(*on_gpu(layer)))
        for name, a, b in zip(reference.TRAIN_PARTS, cpu, gpu, strict=True):
            b = b.cpu()
            if name == "q":
                a, b = a[:, :in_features], b[:, :in_features]
            assert reference.bits_equal(a, b), (name, [list(t.shape) for t in layer[:2]])
        x, _, bias, norm_weight, rms, eps, _ = on_gpu(layer)
        prepared = ops.prepare(gpu[4], in_features)
        assert prepared.numel() == trit._fake.prepared_size(len(gpu[4]), in_features, x.device)
        y = ops.bit_linear_prepared(x, prepared, gpu[5], len(gpu[4]), in_features, bias, norm_weight, rms=rms, eps=eps)
        assert reference.bits_equal(y.cpu(), cpu[0])
        quantised = ops.norm_quant(x, norm_weight, rms=rms, eps=eps)
        assert torch.equal(quantised.q_sum.cpu(), cpu[1].sum(1, dtype=torch.int32))
        y = ops.packed_linear(quantised, gpu[4], gpu[5], in_features, bias, x.dtype)
        assert reference.bits_equal(y.cpu(), cpu[0])


def test_bits_of_the_cpu_with_groups():
    for _ in range(SHAPES // 4):
        x, weight, group = test_groups.random_layer()
        out_features, in_features = weight.shape
        layer = (x, weight, torch.randn(out_features), None, True, 1e-6, False, group)
        cpu = reference.train_parts(torch.ops.trit_stable.bit_linear_train(*layer))
        gpu = reference.train_parts(torch.ops.trit_stable.bit_linear_train(*on_gpu(layer)))
        for name, a, b in zip(reference.TRAIN_PARTS, cpu, gpu, strict=True):
            b = b.cpu()
            if name == "q":
                a, b = a[:, :in_features], b[:, :in_features]
            assert reference.bits_equal(a, b), (name, list(x.shape), list(weight.shape), group)
        x, weight, bias, *_ = on_gpu(layer)
        codes, beta = gpu[4], gpu[5]
        assert torch.equal(ops.absmean(weight, group=group), beta)
        assert torch.equal(ops.ternarize_pack(weight, beta, group), codes)
        assert reference.bits_equal(ops.dequantize(codes, beta, in_features, group=group).cpu(),
                                    ops.dequantize(cpu[4], cpu[5], in_features, group=group))
        prepared = ops.prepare(codes, in_features, beta, group)
        assert prepared.numel() == trit._fake.prepared_size(out_features, in_features, x.device, group)
        quantised = ops.norm_quant(x)
        for y in (ops.bit_linear_prepared(x, prepared, beta, out_features, in_features, bias, group=group),
                  ops.prepared_linear(quantised, prepared, beta, out_features, in_features, bias, x.dtype, group),
                  ops.packed_linear(quantised, codes, beta, in_features, bias, x.dtype, group)):
            assert reference.bits_equal(y.cpu(), cpu[0])


def test_layer_with_groups():
    """Moved, frozen, its state dict and packed form: the CPU's bits."""
    net = test_groups.network()
    x = torch.randn(9, 150)
    want, packed = net(x), trit.pack(net)
    net.cuda()
    assert reference.bits_equal(net(x.cuda()).cpu(), want)
    for name, tensor in trit.pack(net).items():
        assert reference.bits_equal(tensor.cpu(), packed[name]), name
    frozen = trit.freeze(copy.deepcopy(net))
    assert reference.bits_equal(frozen(x.cuda()).cpu(), want)
    assert reference.bits_equal(frozen.cpu()(x), want)
    with pytest.raises(RuntimeError, match="wanted weight_scale"):
        ops.prepare(torch.zeros(8, 16, dtype=torch.uint8, device="cuda"), 64, group=32)


def test_sums():
    check_sums("cuda")


def test_slices():
    check_slices("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients(dtype):
    """Against the CPU's, to the rounding of the type."""
    for tokens, in_features, out_features in [(5, 30, 7), (64, 256, 128), (300, 1024, 264)]:
        layer = BitLinear(in_features, out_features, scale=random.choice(["tensor", "row", "group:64"]))
        twin = copy.deepcopy(layer).cuda()
        x = torch.randn(tokens, in_features).to(dtype).requires_grad_()
        x_gpu = x.detach().cuda().requires_grad_()
        grad = torch.randn(tokens, out_features).to(dtype)
        layer(x).backward(grad)
        twin(x_gpu).backward(grad.cuda())
        tolerance = {torch.float32: 1e-3, torch.bfloat16: 4e-2, torch.float16: 5e-3}[dtype]
        for a, b in zip((x, *layer.parameters()), (x_gpu, *twin.parameters()), strict=True):
            error = (a.grad.float() - b.grad.cpu().float()).abs().max()
            assert error <= tolerance * a.grad.float().abs().max(), (dtype, list(a.shape))


@pytest.mark.parametrize("stochastic", [False, True])
def test_backward_int8(stochastic):
    """The CPU's bits, random numbers included."""
    for _ in range(SHAPES // 8):
        grad, q, *case = random_case()
        rounding = torch.randint(0, 1 << 62, (2,)) if stochastic else None
        cpu = ops.linear_backward_int8(grad, q, *case, rounding=rounding)
        in_features = case[3]
        wide = torch.nn.functional.pad(q[:, :in_features], (0, trit._fake.q_width(in_features, torch.device("cuda")) - in_features))
        gpu = ops.linear_backward_int8(*on_gpu((grad, wide, *case)), rounding=None if rounding is None else rounding.cuda())
        for name, a, b in zip(("grad_x", "grad_weight"), cpu, gpu, strict=True):
            assert reference.bits_equal(a, b.cpu()), (name, list(grad.shape), in_features)


def test_layer_with_backward_int8():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        layer = BitLinear(264, 136, backward="int8_all", scale=random.choice(["tensor", "row"]))
        twin = copy.deepcopy(layer).cuda()
        x = torch.randn(100, 264).to(dtype).requires_grad_()
        x_gpu = x.detach().cuda().requires_grad_()
        grad = torch.randn(100, 136).to(dtype)
        layer(x).backward(grad)
        twin(x_gpu).backward(grad.cuda())
        assert reference.bits_equal(x.grad, x_gpu.grad.cpu())
        assert reference.bits_equal(layer.weight.grad, twin.weight.grad.cpu())


@pytest.mark.parametrize("compiled", [False, True])
def test_stochastic_rounding_in_cuda_graphs(compiled):
    """Each replay draws its own random numbers, which are right on average."""
    torch.compiler.reset()
    layer = BitLinear(256, 128, norm="none", backward="int8_all", stochastic_rounding=True).cuda()
    x, grad = torch.randn(64, 256, device="cuda"), torch.randn(64, 128, device="cuda")
    if compiled:
        call = torch.compile(layer, fullgraph=True, mode="reduce-overhead")

        def step():
            torch.compiler.cudagraph_mark_step_begin()
            layer.zero_grad()
            call(x).backward(grad)
            return layer.weight.grad.clone()
    else:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                layer(x).backward(grad)
        torch.cuda.synchronize()
        layer.zero_grad(set_to_none=False)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            layer(x).backward(grad)

        def step():
            layer.zero_grad(set_to_none=False)
            graph.replay()
            return layer.weight.grad.clone()
    found = [step() for _ in range(205)][5:]
    assert all(not torch.equal(a, b) for a, b in zip(found, found[1:]))
    layer.backward = "exact"
    layer.zero_grad()
    layer(x).backward(grad)
    want = layer.weight.grad
    errors = [float((g - want).norm() / want.norm()) for g in (sum(found) / len(found), found[0])]
    assert errors[0] < 0.15 * errors[1], errors


@pytest.mark.parametrize("backward", ["exact", "int8_input", "int8_all"])
def test_what_layers_share(backward):
    torch.compiler.reset()
    check_what_layers_share(backward, "cuda")


def test_opcheck():
    for name, arguments in opcheck_calls("cuda"):
        torch.library.opcheck(getattr(torch.ops.trit_stable, name).default, arguments)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled(mode):
    torch.compiler.reset()
    model = trit.freeze(torch.nn.Sequential(BitLinear(256, 512), torch.nn.SiLU(), BitLinear(512, 256))).cuda().eval()
    compiled = torch.compile(model, fullgraph=True, mode=mode)
    with torch.no_grad():
        for _ in range(4):
            x = torch.randn(16, 256, device="cuda", dtype=torch.bfloat16)
            assert torch.allclose(compiled(x).float(), model(x).float(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("norm", "scale"), [("rms", "tensor"), ("none", "tensor"), ("rms", "group:64")])
def test_training_in_cuda_graphs(norm, scale):
    """Training under mode="reduce-overhead": new inputs and new weights at each replay, gradients as without compiling."""
    torch.compiler.reset()
    model = torch.nn.Sequential(BitLinear(256, 512, norm=norm, scale=scale), torch.nn.SiLU(),
                                BitLinear(512, 64, norm=norm, scale=scale)).cuda()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, mode="reduce-overhead")
    for step in range(6):
        x = torch.randn(32, 256, device="cuda", dtype=torch.bfloat16)
        torch.compiler.cudagraph_mark_step_begin()
        for layers, call in ((model, model), (twin, compiled)):
            layers.zero_grad()
            call(x).float().square().mean().backward()
        for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert (a.grad - b.grad).norm() <= 3e-2 * a.grad.norm(), (step, name)
            with torch.no_grad():
                a -= 0.1 * a.grad
                b.copy_(a)
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0


def test_captured_training_step():
    layer = BitLinear(256, 128).cuda()
    x = torch.randn(32, 256, device="cuda")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            layer(x).square().sum().backward()
    torch.cuda.synchronize()
    layer.zero_grad(set_to_none=False)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer(x).square().sum().backward()
    layer.zero_grad(set_to_none=False)
    graph.replay()
    torch.cuda.synchronize()
    found = layer.weight.grad.clone()
    layer.zero_grad()
    layer(x).square().sum().backward()
    assert torch.equal(found, layer.weight.grad)


def test_devices_are_checked():
    layer = BitLinear(16, 8).cuda()
    with pytest.raises(RuntimeError, match="the weight is on cuda:0 and x on the CPU|wanted both on one device|same device"):
        layer(torch.randn(2, 16))
    packed = trit.freeze(BitLinear(16, 8))
    x = torch.randn(3, 16)
    want = packed(x)
    assert reference.bits_equal(packed.cuda()(x.cuda()).cpu(), want)
    assert reference.bits_equal(packed.cpu()(x), want)
