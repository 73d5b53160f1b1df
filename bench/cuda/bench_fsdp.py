#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""FSDP2 of ternary layers, their weights gathered in 2 bits, against FSDP2 of compiled bfloat16 torch.nn.Linear.

    torchrun --nproc-per-node 4 bench/cuda/bench_fsdp.py [--tokens 8192] [--json FILE]

A stack of square layers, each sharded by itself: forward, backward and AdamW of --tokens tokens on each GPU. Variants are
timed in turn, the median of all steps counts. Bytes are what one all-gather of all weights brings to a GPU, a step makes
two of them. The library: TRIT_LIBRARY=build/lib/libtrit_torch_stable.so PYTHONPATH=python.
"""
import argparse
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
import trit
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

POLICY = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def stack(kind: str, args: argparse.Namespace, device: torch.device) -> torch.nn.Module:
    """`kind`: "float", "ternary" (gathered as bfloat16), "codes", or "codes, int8_all", with gradients in 8 bits."""
    def layer() -> torch.nn.Module:
        if kind == "float":
            return torch.nn.Linear(args.features, args.features, bias=False, device=device)
        return trit.nn.BitLinear(args.features, args.features, bias=False, norm="none", device=device,
                                 backward="int8_all" if kind == "codes, int8_all" else "exact")

    torch.manual_seed(0)
    model = torch.nn.Sequential(*(layer() for _ in range(args.layers)))
    if kind.startswith("codes"):
        trit.fsdp.gather_codes_(model)
    for part in model:
        part.forward = torch.compile(part.forward)  # type: ignore[method-assign]
        fully_shard(part, mp_policy=POLICY)
    return fully_shard(model, mp_policy=POLICY)


def gathered(step: Callable[[], None]) -> int:
    """Bytes that the all-gathers of a step bring to this process."""
    total, real = 0, dist.all_gather_into_tensor

    def count(output_tensor: torch.Tensor, *args: object, **kwargs: object) -> object:
        nonlocal total
        total += output_tensor.nbytes
        return real(output_tensor, *args, **kwargs)

    dist.all_gather_into_tensor = count
    try:
        step()
    finally:
        dist.all_gather_into_tensor = real
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--features", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=8192, help="per GPU (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each variant (%(default)s)")
    parser.add_argument("--profile", action="store_true", help="print where each variant spends its time, measure nothing")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    x = torch.randn(args.tokens, args.features, device=device, dtype=torch.bfloat16)

    def stepper(kind: str) -> Callable[[], None]:
        model = stack(kind, args, device)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=gpu)

        def step() -> None:
            model(x).float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return step

    steps = {kind: stepper(kind) for kind in ("float", "ternary", "codes", "codes, int8_all")}
    sizes = {}
    for kind, step in steps.items():
        step()  # compiles
        sizes[kind] = gathered(step) // 2
    if args.profile:
        for kind, step in steps.items():
            with torch.profiler.profile() as profiler:
                for _ in range(3):
                    step()
                torch.cuda.synchronize()
            if dist.get_rank() == 0:
                for key in ("self_cuda_time_total", "self_cpu_time_total"):
                    print(f"== {kind} by {key}")
                    print(profiler.key_averages().table(sort_by=key, row_limit=14, max_name_column_width=60))
        dist.destroy_process_group()
        return
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for round_ in range(args.steps // 5):
        for kind, step in steps.items():
            step()
            for _ in range(5):
                if gpu:
                    torch.cuda.synchronize()
                dist.barrier()
                start = time.perf_counter()
                step()
                if gpu:
                    torch.cuda.synchronize()
                times[kind].append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        result = {"device": torch.cuda.get_device_name() if gpu else "cpu", "processes": dist.get_world_size(), **vars(args),
                  "json": None, "bytes": sizes, "step_ms": {kind: 1e3 * statistics.median(t) for kind, t in times.items()}}
        base = result["step_ms"]["float"]
        for kind in steps:
            print(f"{kind:15} {sizes[kind] / 2**20:9.1f} MiB gathered ({sizes[kind] / sizes['float']:.4f})   "
                  f"{result['step_ms'][kind]:8.2f} ms a step ({result['step_ms'][kind] / base:.3f})", flush=True)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
