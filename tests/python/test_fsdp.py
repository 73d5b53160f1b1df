# SPDX-License-Identifier: MIT
"""trit.fsdp in two processes with Gloo against fully_shard alone, and checkpoints of two processes in one."""

import os
import pathlib
import subprocess
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

import processes
import trit
from trit.nn import BitLinear

ROWS = 6  # of a batch, per process


def network(backward="exact"):
    """Rows that two processes cannot share evenly, one row alone, inputs that are no multiple of 4, both granularities."""
    torch.manual_seed(3)
    return torch.nn.Sequential(BitLinear(30, 33, backward=backward), torch.nn.ReLU(),
                               BitLinear(33, 9, scale="row", norm="none", backward=backward),
                               BitLinear(9, 1, bias=False, backward=backward))


def sharded(codes, whole=False, backward="exact", **options):
    model = network(backward)
    if codes:
        assert trit.fsdp.gather_codes_(model) == 3
    for layer in [] if whole else model:
        if isinstance(layer, BitLinear):
            fully_shard(layer, **options)
    return fully_shard(model, **options)


def batch(step):
    generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
    return torch.randn(ROWS, 30, generator=generator)


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Count:
    """Bytes that all-gathers bring to this process, and the number of all-reduces."""

    def __enter__(self):
        self.bytes, self.reduces = 0, 0
        # FSDP2 of torch 2.11 calls the first, of 2.15 the second.
        self.real = {name: getattr(dist, name) for name in ("all_gather_into_tensor", "all_gather_single", "all_reduce")
                     if hasattr(dist, name)}

        def counting(name):
            def call(output, *args, **kwargs):
                self.bytes += output.nbytes if name != "all_reduce" else 0
                self.reduces += name == "all_reduce"
                return self.real[name](output, *args, **kwargs)
            return call

        for name in self.real:
            setattr(dist, name, counting(name))
        return self

    def __exit__(self, *args):
        for name, function in self.real.items():
            setattr(dist, name, function)


def steps_of(codes, whole=False, accumulate=1, backward="exact", **options):
    """Losses, gradients and weights of some steps, and the traffic of the last one."""
    model = sharded(codes, whole, backward, **options)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    found = []
    for step in range(4):
        with Count() as count:
            for part in range(accumulate):
                model.set_requires_gradient_sync(part + 1 == accumulate)
                loss = model(batch(step * accumulate + part)).square().mean()
                loss.backward()
                found.append(loss.detach())
        found += [full(p.grad) for p in model.parameters()]
        optimizer.step()
        optimizer.zero_grad()
    return [*found, *(full(p).detach() for p in model.parameters())], count


def check_equal():
    for whole, accumulate, backward in ((False, 1, "exact"), (True, 1, "exact"), (False, 3, "exact"), (False, 1, "int8_all")):
        want, plain = steps_of(False, whole, accumulate, backward)
        found, ours = steps_of(True, whole, accumulate, backward)
        assert len(want) == len(found) and all(map(torch.equal, want, found)), (whole, accumulate, backward)
        assert ours.reduces == plain.reduces + 1, "one all-reduce for all scales after a change of the weights"
        assert ours.bytes < plain.bytes / 2  # norms and biases are float in both


def check_meshes():
    """Replicas of one shard each, and of two."""
    for shape in ((2, 1), (1, 2)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
        (want, _), (found, _) = steps_of(False, mesh=mesh), steps_of(True, mesh=mesh)
        assert all(map(torch.equal, want, found)), shape


def check_bytes():
    """Of a layer without norm and bias: 1/8 of bfloat16's, and 16 bytes a process for the scale."""
    layer = BitLinear(256, 64, bias=False, norm="none")
    want = trit.ops.ternarize_pack(layer.weight, trit.ops.absmean(layer.weight))
    trit.fsdp.gather_codes_(layer)
    fully_shard(layer)
    with Count() as count, torch.no_grad():
        layer(torch.randn(1, 256))
    assert count.bytes == 256 * 64 / 4 + 16 * dist.get_world_size(), count.bytes
    layer.unshard()
    assert torch.equal(layer.weight.codes, want)
    assert torch.equal(layer.weight + 0, trit.ops.dequantize(want, layer.weight.scale, 256))
    for _ in range(40):  # the scale's last bit too
        layer.reshard()
        with torch.no_grad():
            layer.weight.mul_(1.07).add_(0.01)
        whole = layer.weight.full_tensor().detach()
        layer.unshard()
        assert torch.equal(layer.weight.scale, trit.ops.absmean(whole))
    layer.reshard()


def check_mixed_precision():
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model, alone = sharded(True, mp_policy=policy), network()
    x = batch(0)
    y = model(x)
    with torch.no_grad():
        want = x.bfloat16()
        for layer in alone:  # float32 weights, bfloat16 norms and biases
            if isinstance(layer, BitLinear):
                norm = None if layer.norm is None else layer.norm.weight.bfloat16()
                want = trit.ops.bit_linear(want, layer.weight, None if layer.bias is None else layer.bias.bfloat16(), norm,
                                           rms=norm is not None, per_row=layer.scale == "row")
            else:
                want = layer(want)
    assert y.dtype == torch.bfloat16 and torch.equal(y, want)
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and full(p.grad).isfinite().all() for p in model.parameters())


def check_state():
    """State dicts are those of fully_shard alone; loading one and changing a weight by hand are seen."""
    model, other = sharded(True), sharded(False)
    state = model.state_dict()
    for key, want in other.state_dict().items():
        assert type(state[key].to_local()) is torch.Tensor and torch.equal(full(state[key]), full(want)), key
    with torch.no_grad():
        x = batch(0)
        before = model(x)
        for p in other.parameters():
            p.mul_(-1.5)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(x), other(x)) and not torch.equal(model(x), before)
        for p in model.parameters():
            p.div_(-1.5)
        assert torch.allclose(model(x), before, rtol=1e-4, atol=1e-5)
        state = model.state_dict()
        for key, value in other.state_dict().items():
            state[key].to_local().copy_(value.to_local())  # as torch.distributed.checkpoint loads
        assert torch.equal(model(x), other(x))


def check_compiled():
    want, _ = steps_of(True)
    model = network()
    for layer in model:
        if isinstance(layer, BitLinear):
            layer.forward = torch.compile(layer.forward, fullgraph=True, backend="aot_eager")
    trit.fsdp.gather_codes_(model)
    for layer in model:
        if isinstance(layer, BitLinear):
            fully_shard(layer)
    fully_shard(model)
    loss = model(batch(0)).square().mean()
    loss.backward()
    assert torch.equal(loss.detach(), want[0])
    for p, gradient in zip(model.parameters(), want[1:]):
        assert torch.equal(full(p.grad), gradient)


def check_errors():
    model = sharded(True)
    trit.set_lambda(model, 0.5)
    for expected, call in (("sharded already", lambda: trit.fsdp.gather_codes_(model)), ("A warm-up", lambda: model(batch(0)))):
        try:
            call()
            raise AssertionError(f"no error: {expected}")
        except RuntimeError as error:
            assert expected in str(error), error


def state_of(model, optimizer):
    weights, optimiser = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": optimiser}


def train(model, optimizer, steps, rows):
    for step in steps:
        optimizer.zero_grad()
        model(rows(step)).square().mean().backward()
        optimizer.step()


def check_checkpoints(folder):
    """Two processes save, one goes on and saves, two go on: as one process that does it all."""
    def everything(step):
        generator = torch.Generator().manual_seed(step)
        return torch.randn(2 * ROWS, 30, generator=generator)

    def mine(step):
        return everything(step).chunk(2)[dist.get_rank()]

    def load(model, optimizer, name, **options):
        state = state_of(model, optimizer)
        dcp.load(state, checkpoint_id=folder / name, **options)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    def new(model):
        return model, torch.optim.AdamW(model.parameters(), 0.01)

    for codes in (False, True):
        first = new(sharded(codes))
        train(*first, range(3), mine)
        dcp.save(state_of(*first), checkpoint_id=folder / f"two {codes}")
        if dist.get_rank() == 0:
            second = new(network())
            load(*second, f"two {codes}", no_dist=True)
            train(*second, range(3, 6), everything)
            dcp.save(state_of(*second), checkpoint_id=folder / f"one {codes}", no_dist=True)
        dist.barrier()
        third = new(sharded(codes))
        load(*third, f"one {codes}")
        train(*third, range(6, 9), mine)
        alone = new(network())
        train(*alone, range(9), everything)
        for (name, found), want in zip(third[0].named_parameters(), alone[0].parameters()):
            assert torch.allclose(full(found), want, rtol=1e-4, atol=2e-4), (codes, name, full(found) - want)


def worker(folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(os.environ["RANK"]), world_size=2)
    check_equal()
    check_meshes()
    check_bytes()
    check_mixed_precision()
    check_state()
    check_errors()
    check_compiled()
    check_checkpoints(folder)
    processes.leave()


def test_two_processes(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    processes = [subprocess.Popen([sys.executable, __file__, str(tmp_path)], env={**environment, "RANK": str(rank)},
                                  stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error[-4000:] for error in errors)


if __name__ == "__main__":
    worker(pathlib.Path(sys.argv[1]))
