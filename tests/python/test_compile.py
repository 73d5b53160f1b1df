# SPDX-License-Identifier: MIT
"""torch.compile without graph breaks, with a dynamic batch, and torch.export."""

import copy
import os
import subprocess

import pytest
import torch
import torch._dynamo.testing
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition

import trit
from trit.nn import BitLinear


class Block(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.up = BitLinear(24, 40, **options)
        self.down = BitLinear(40, 24, bias=False, **options)
        self.norm = trit.nn.RMSNorm(24)

    def forward(self, x):
        return self.norm(x + self.down(torch.nn.functional.silu(self.up(x))))


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()


@pytest.mark.parametrize("options", [{}, {"norm": "none", "scale": "row"}, {"scale": "group:32"}])
def test_training(options):
    model = Block(**options)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, dynamic=True)
    for tokens in (3, 8, 17):
        x = torch.randn(tokens, 24)
        inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
        outputs = [model(inputs[0]), compiled(inputs[1])]
        for y in outputs:
            y.square().sum().backward()
        assert torch.allclose(*outputs, rtol=1e-5, atol=1e-5)
        assert torch.allclose(inputs[0].grad, inputs[1].grad, rtol=1e-3, atol=1e-3)
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-3), name


class Attention(torch.nn.Module):
    """Layers that read the same x, one of them with a norm of its own, and one that shares its weight."""

    def __init__(self, **options):
        super().__init__()
        self.q, self.k = (BitLinear(24, 24, norm="none", **options) for _ in range(2))
        self.v = BitLinear(24, 24, norm="rms", **options)

    def forward(self, x):
        x = torch.nn.functional.silu(x)
        return self.q(x) * self.k(x) + self.v(x) + self.q(2 * x)


def check_what_layers_share(backward, device):
    """x is quantised once for q and k, and q's weight packed once; values and gradients are the eager ones."""
    calls = {"forward": [], "backward": []}

    def recorder(name):
        def compiler(graph, inputs):
            calls[name] += [str(node.target).split(".")[1] for node in graph.graph.nodes if "trit_stable" in str(node.target)]
            return make_boxed_func(graph.forward)
        return compiler

    model = Attention(backward=backward).to(device)
    twin = copy.deepcopy(model)
    backend = aot_autograd(fw_compiler=recorder("forward"), bw_compiler=recorder("backward"),
                           partition_fn=min_cut_rematerialization_partition)
    compiled = torch.compile(twin, fullgraph=True, backend=backend)
    inputs = [torch.randn(2, 7, 24, device=device).requires_grad_() for _ in range(2)]
    with torch.no_grad():
        inputs[1].copy_(inputs[0])
    grad = torch.randn(2, 7, 24, device=device)
    outputs = [model(inputs[0]), compiled(inputs[1])]
    for y in outputs:
        y.backward(grad)
    assert torch.equal(*outputs)
    for a, b in zip((inputs[0], *model.parameters()), (inputs[1], *twin.parameters()), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-5)
    assert [calls["forward"].count(name) for name in ("norm_quant", "pack_weight", "prepared_linear")] == [3, 3, 4]
    assert set(calls["backward"]).isdisjoint(calls["forward"]), "nothing is computed again"
    shared = 3 if device == "cuda" and backward != "int8_all" else 0  # x of q and k, of v, and 2 x
    assert calls["backward"].count("dequantize_tokens") == shared


@pytest.mark.parametrize("backward", ["exact", "int8_input", "int8_all"])
def test_what_layers_share(backward):
    check_what_layers_share(backward, "cpu")


@pytest.mark.parametrize("shape", [(24,), (0, 24), (2, 0, 24), (2, 3, 24)])
def test_shapes_and_gradients(shape):
    """The eager bits, whichever gradients are wanted."""
    for dtype, rms, backward, wanted in [(torch.float32, True, "exact", (1, 1, 1, 1)), (torch.bfloat16, False, "exact", (0, 1, 0, 0)),
                                         (torch.float16, True, "int8_all", (1, 0, 0, 0)), (torch.float32, True, "int8_input", (0, 0, 1, 1)),
                                         (torch.float32, False, "int8_input", (1, 1, 0, 0))]:
        torch.compiler.reset()
        x, weight, bias, g = torch.randn(shape).to(dtype), torch.randn(10, 24), torch.randn(10), torch.rand(24) + 0.5
        results = []
        for call in (trit.ops.bit_linear, torch.compile(trit.ops.bit_linear, fullgraph=True, backend="aot_eager")):
            leaves = [t.clone().requires_grad_(bool(w)) for t, w in zip((x, weight, bias, g), wanted, strict=True)]
            y = call(*leaves[:3], leaves[3] if rms else None, rms=rms, backward=backward)
            y.backward(torch.ones_like(y))
            results.append([y, *(leaf.grad for leaf in leaves)])
        for a, b in zip(*results, strict=True):
            assert (a is None) == (b is None) and (a is None or torch.equal(a, b)), (dtype, rms, backward, wanted)


@pytest.mark.parametrize("scale", ["tensor", "group:32"])
def test_inference_is_compiled_once(scale):
    model = trit.freeze(Block(scale=scale)).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (2, 5, 9, 64):
            x = torch.randn(tokens, 24)
            assert torch.allclose(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_warm_up_is_compiled_once():
    model = BitLinear(24, 8, lambda_=0.1)
    counted = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counted)
    x = torch.randn(4, 24)
    for value in (0.1, 0.2, 0.5, 0.9):
        model.set_lambda(value)
        assert torch.allclose(compiled(x), model(x))
    assert counted.frame_count == 1
    model.set_lambda(1)
    assert torch.equal(compiled(x), model(x))
    assert counted.frame_count == 2


def test_autocast_inside():
    model = Block()
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        found, want = compiled(x), model(x)
    assert found.dtype == want.dtype and torch.allclose(found.float(), want.float(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("freeze", [False, True])
def test_export(freeze, tmp_path):
    model = Block().eval()
    model = trit.freeze(model) if freeze else model
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(4, 24),), dynamic_shapes=({0: batch},))
        x = torch.randn(7, 24)
        assert torch.equal(program.module()(x), model(x))
        torch.export.save(program, tmp_path / "model.pt2")
        again = torch.export.load(tmp_path / "model.pt2")
        assert torch.equal(again.module()(x), model(x))
    calls = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    wanted = "trit_stable.bit_linear_prepared.default" if freeze else "trit_stable.bit_linear_train.default"
    assert wanted in calls


def test_aot_inductor(tmp_path):
    """A package that runs without Python, in a program (aoti_run.cpp) too: the prepared weight is in it, so it runs on this
    kind of processor."""
    model = trit.freeze(Block()).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(4, 24),), dynamic_shapes=({0: batch},))
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
        runner = torch._inductor.aoti_load_package(package)
        for tokens in (1, 9):
            x = torch.randn(tokens, 24)
            assert torch.allclose(runner(x), model(x), rtol=1e-5, atol=1e-5)
        program = os.environ.get("TRIT_AOTI_RUN")
        if program is None:
            return  # a build without LibTorch's half
        run = subprocess.run([program, trit._library._path(), package, "24"], input=x.numpy().tobytes(), capture_output=True,
                             check=False)
        assert run.returncode == 0, run.stderr.decode()
        found = torch.frombuffer(bytearray(run.stdout), dtype=torch.float32).reshape(9, 24)
        assert torch.equal(found, runner(x))
