# SPDX-License-Identifier: MIT
"""Two processes with Gloo: DistributedDataParallel and fully_shard (FSDP2) against one process."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

import processes
import trit
from trit.nn import BitLinear

STEPS = 4


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(BitLinear(24, 32), torch.nn.ReLU(), BitLinear(32, 8, scale="row"))


def batches():
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(8, 24, generator=generator) for _ in range(STEPS)]


def train(model, step_batches):
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for x in step_batches:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def worker(kind):
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    alone = network()
    train(alone, batches())
    model = network()
    if kind == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.fsdp import fully_shard
        for layer in model:
            if isinstance(layer, BitLinear):
                fully_shard(layer)
        fully_shard(model)
    train(model, [x.chunk(world)[rank] for x in batches()])
    state = (model.module if kind == "ddp" else model).state_dict()
    for key, want in alone.state_dict().items():
        found = state[key]
        found = found.full_tensor() if hasattr(found, "full_tensor") else found
        assert torch.allclose(found, want, rtol=1e-4, atol=1e-5), (key, float((found - want).abs().max()))
    processes.leave()


def run(kind, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1",
               "--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", __file__, kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes(kind, tmp_path):
    run(kind, tmp_path)


def test_version():
    assert trit.__version__.count(".") == 2


if __name__ == "__main__":
    worker(sys.argv[1])
