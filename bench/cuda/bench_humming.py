#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Products on a GPU against humming, vLLM's kernel library (PyPI: humming-kernels), in one process.

    pip install humming-kernels
    bench_humming.py [--build build-cuda] [--group 128] [--shapes NxK,...] [--tokens 1,8,...] [--json FILE]

Both multiply the same int8 activations with the same ternary weights (humming's BitNet schema, int8 activations, its own
choice of kernel) to bfloat16 outputs, with one weight scale or, with --group 128, a float16 one for each group of inputs
(humming's own schema: the same 2-bit codes, group scales). Scales are powers of two, so the outputs are known exactly: int64 sums, scaled and
rounded once. trit's must be equal, humming's within one unit in the last place; what was not written is NaN. Each side is
a CUDA graph of launches; weights rotate over copies that exceed the second-level cache up to 256 tokens, as in a model that
decodes. humming's launches have programmatic edges where its heuristics ask for them; trit is timed with ordinary and with
programmatic edges. Before each timing the same work runs for --settle milliseconds, so that the clocks are those of that
work; sides take turns; figures are medians over rounds, ratios humming / trit.

Needs the library bench_cuda_product of a build with CUDA (target of that name).
"""
import argparse
import ctypes
import datetime
import importlib.metadata
import json
import math
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SHAPES = "2560x2560,6912x2560,4096x4096,14336x4096"
TOKENS = "1,8,16,64,256,1024,4096"
ROTATED_TOKENS = 256
BETA = 2.0**-7


class Trit:
    """The functions of product_for_python.cpp."""

    def __init__(self, path: pathlib.Path):
        self.library = ctypes.CDLL(str(path))
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self.library.trit_last_error.restype = ctypes.c_char_p
        self.library.trit_weight_bytes.restype = ctypes.c_size_t
        self.library.trit_weight_bytes.argtypes = [size, size]
        self.library.trit_prepare_weights.argtypes = [pointer, size, size, pointer, pointer]
        self.library.trit_group_scale_bytes.restype = ctypes.c_size_t
        self.library.trit_group_scale_bytes.argtypes = [size, size, size]
        self.library.trit_prepare_group_scales.argtypes = [pointer, size, size, size, pointer, pointer]
        self.library.trit_workspace_bytes.argtypes = [size, size, size, size, ctypes.POINTER(ctypes.c_size_t)]
        self.library.trit_product.argtypes = [pointer, size, size, pointer, pointer, size, pointer, size, pointer, pointer,
                                              ctypes.c_int, pointer]

    def call(self, name: str, *arguments) -> None:
        if getattr(self.library, name)(*arguments) != 0:
            raise SystemExit(f"bench_humming: {self.library.trit_last_error().decode()}")


def stream() -> int:
    return torch.cuda.current_stream().cuda_stream


class TritWeights:
    """`beta`: [1], or [N, K / group] with group scales, whose copies rotate as the weights do."""

    def __init__(self, trit: Trit, t: "torch.Tensor", beta: "torch.Tensor", group: int, copies: int):
        self.group = group
        self.trit, (self.n, self.k) = trit, t.shape
        shifts = torch.tensor([0, 2, 4, 6], device="cuda", dtype=torch.int32)
        codes = ((t.view(self.n, self.k // 4, 4).to(torch.int32) & 3) << shifts).sum(2, dtype=torch.int32).to(torch.uint8)
        one = torch.empty(trit.library.trit_weight_bytes(self.n, self.k), dtype=torch.uint8, device="cuda")
        trit.call("trit_prepare_weights", codes.data_ptr(), self.n, self.k, one.data_ptr(), stream())
        self.copies = [one] + [one.clone() for _ in range(copies - 1)]
        self.scales = [beta]
        if group:
            prepared = torch.empty(trit.library.trit_group_scale_bytes(self.n, self.k, group), dtype=torch.uint8, device="cuda")
            trit.call("trit_prepare_group_scales", beta.data_ptr(), self.n, self.k, group, prepared.data_ptr(), stream())
            self.scales = [prepared] + [prepared.clone() for _ in range(copies - 1)]

    def launcher(self, q, scale, y, programmatic: bool):
        tokens = q.shape[0]
        size = ctypes.c_size_t()
        self.trit.call("trit_workspace_bytes", tokens, self.n, self.k, self.group, ctypes.byref(size))
        workspace = torch.zeros(size.value + 16, dtype=torch.uint8, device="cuda")

        def launch(i: int) -> None:
            self.trit.call("trit_product", self.copies[i % len(self.copies)].data_ptr(), self.n, self.k, q.data_ptr(),
                           scale.data_ptr(), tokens, self.scales[i % len(self.scales)].data_ptr(), self.group,
                           y.data_ptr(), workspace.data_ptr(), int(programmatic), stream())
        return launch


class HummingWeights:
    def __init__(self, t: "torch.Tensor", beta: "torch.Tensor", group: int, copies: int):
        from humming import ops
        from humming.layer import HummingLayer

        n, k = t.shape
        config = {"quant_method": "bitnet"}
        if group:
            config = {"quant_method": "humming", "b_dtype": "float2e0m1", "bs_dtype": "bfloat16", "weight_scale_group_size": group}
        self.layer = HummingLayer(shape_n=n, shape_k=k, weight_config=config, input_config={"dtype": "int8"},
                                  torch_dtype=torch.bfloat16).cuda()
        if group:
            # As the BitNet schema makes its codes: two's complement, then the float type.
            codes = ops.pack_weight(t, 2)
            ops.convert_weight(codes, "int2", "float2e0m1", inplace=True)
            tensors = {"weight": codes, "weight_scale": beta.to(torch.bfloat16)}
        else:
            # Four rows a byte, the first in the low bits, -1 as 0; the schema's scale is the reciprocal.
            shifts = torch.tensor([0, 2, 4, 6], device="cuda", dtype=torch.int32)
            codes = (t + 1).view(n // 4, 4, k).to(torch.int32) << shifts[:, None]
            tensors = {"weight": codes.sum(1, dtype=torch.int32).to(torch.uint8),
                       "weight_scale": torch.full((1,), 1 / BETA, dtype=torch.bfloat16, device="cuda")}
        self.layer.load_from_tensors(tensors)
        self.layer.transform()
        own = self.layer.weight
        self.copies = [own] + [torch.nn.Parameter(own.detach().clone(), requires_grad=False) for _ in range(copies - 1)]

    def launcher(self, q, scale, y):
        def launch(i: int) -> None:
            self.layer.weight = self.copies[i % len(self.copies)]
            self.layer(q, outputs=y, input_scale=scale)
        return launch


def exact(q: "torch.Tensor", t: "torch.Tensor", scale: "torch.Tensor", beta: "torch.Tensor") -> "torch.Tensor":
    """Sums are below 2^53, so float64 holds them; scales are powers of two, and so near each other that the sum over the
    groups is exact in fp32 as well."""
    weights = t.double() * beta.double().repeat_interleave(t.shape[1] // beta.shape[-1], dim=-1)
    rows = [(part.double() @ weights.T) for part in q.split(512)]
    return (torch.cat(rows) * scale.double()).to(torch.bfloat16)


def check(name: str, y: "torch.Tensor", wanted: "torch.Tensor", exactly: bool) -> None:
    """Ours has every bit. humming adds parts of a sum in bfloat16: its error is at most 1 % of the outputs' norm, and no
    output is off by more than a quarter of a typical one."""
    found, right = y.float(), wanted.float()
    error = (found - right).abs()
    typical = right.square().mean().sqrt()
    allowed = torch.zeros_like(right) if exactly else (right.abs() * 2.0**-6 + typical / 4)
    wrong = int((~(error <= allowed)).sum())  # NaN is wrong
    relative = float(error.square().mean().sqrt() / typical)
    if wrong or not relative <= (0.0 if exactly else 0.01):
        raise SystemExit(f"bench_humming: {name}: {wrong} of {y.numel()} outputs are wrong or were not written, "
                         f"relative error {relative:.2g}")


class Graph:
    def __init__(self, launch, launches: int):
        self.launch, self.launches = launch, launches  # what it holds must live as long as the graph
        for i in range(launches):  # compiles, loads and allocates outside of the capture
            launch(i)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for i in range(launches):
                launch(i)
        self.start, self.end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def milliseconds(self, replays: int) -> float:
        self.start.record()
        for _ in range(replays):
            self.graph.replay()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end)

    def microseconds(self, settle: float) -> float:
        """Of one launch, behind `settle` milliseconds of the same."""
        one = self.milliseconds(1)
        self.milliseconds(max(1, math.ceil(settle / one)))
        replays = max(1, math.ceil(5 / one))
        return 1000 * self.milliseconds(replays) / replays / self.launches


def measure(ours: TritWeights, theirs: HummingWeights, t: "torch.Tensor", beta: "torch.Tensor", tokens: int,
            args: argparse.Namespace) -> dict:
    n, k = t.shape
    q = torch.randint(-127, 128, (tokens, k), dtype=torch.int8, device="cuda")
    storage = torch.exp2(torch.randint(-8, -3, ((tokens + 3) // 4 * 4,), device="cuda").float())
    scale = storage[:tokens].view(tokens, 1)
    rotated = len(ours.copies) if tokens <= ROTATED_TOKENS else 1
    # Enough launches for a millisecond, or the whole rotation.
    wanted = min(max(int(1000 / max(2.0 * tokens * n * k / 1.2e9, n * k / 4 / 3.5e6, 4.0)), 1), 128)
    launches = (max(wanted, rotated) + rotated - 1) // rotated * rotated
    right = exact(q, t, scale, beta)
    graphs, outputs = {}, {}
    for name, make in (("trit", lambda y: ours.launcher(q, scale, y, False)),
                       ("trit_programmatic", lambda y: ours.launcher(q, scale, y, True)),
                       ("humming", lambda y: theirs.launcher(q, scale, y))):
        y = outputs[name] = torch.full((tokens, n), float("nan"), dtype=torch.bfloat16, device="cuda")
        launch = make(y)
        turn = (lambda i, f=launch: f(i % rotated))
        turn(0)
        torch.cuda.synchronize()
        check(f"{name}, {n}x{k}, {tokens} tokens", y, right, name != "humming")
        graphs[name] = Graph(turn, launches)
    rounds = {name: [] for name in graphs}
    for _ in range(args.rounds):
        for name, graph in graphs.items():
            rounds[name].append(graph.microseconds(args.settle))
    for name, y in outputs.items():
        check(f"{name}, {n}x{k}, {tokens} tokens, after the timing", y, right, name != "humming")
    result = {"out_features": n, "in_features": k, "tokens": tokens, "weight_copies": rotated,
              "microseconds": {name: statistics.median(values) for name, values in rounds.items()}}
    for name in ("trit", "trit_programmatic"):
        result[f"ratio_to_{name}"] = statistics.median(a / b for a, b in zip(rounds["humming"], rounds[name]))
    return result


def means(results: list[dict]) -> list[dict]:
    found = []
    for tokens in sorted({result["tokens"] for result in results}):
        chosen = [result for result in results if result["tokens"] == tokens]
        one = {"tokens": tokens, "shapes": len(chosen)}
        for name in ("ratio_to_trit", "ratio_to_trit_programmatic"):
            ratios = [result[name] for result in chosen]
            one[name] = math.exp(statistics.fmean(map(math.log, ratios)))
            one[f"least_{name}"] = min(ratios)
        found.append(one)
    return found


def store(path: pathlib.Path, value: dict) -> None:
    data = json.loads(path.read_text()) if path.exists() else {"gpu": value["gpu"]}
    if data.get("gpu") != value["gpu"]:
        raise SystemExit(f"bench_humming: {path} has results of {data.get('gpu')}, these are of {value['gpu']}")
    data["humming_groups" if value["group"] else "humming"] = value
    path.write_text(json.dumps(data, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-cuda", help="folder of a build with CUDA")
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--tokens", default=TOKENS)
    parser.add_argument("--group", type=int, default=0, help="inputs of a weight scale, 128 or 64; 0: one scale")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--settle", type=float, default=120, help="milliseconds of the same work before each timing")
    parser.add_argument("--rotated-megabytes", type=float, default=320, help="of weights; the second-level cache of an H200 holds 60")
    parser.add_argument("--json", type=pathlib.Path, help='file to add the object "humming" to, of the same GPU')
    args = parser.parse_args()
    global torch
    try:
        import torch
    except ImportError:
        raise SystemExit("bench_humming: Python has no torch here (pip install torch)")
    if not torch.cuda.is_available():
        print("skipped: PyTorch finds no GPU here")
        return 77
    try:
        version = importlib.metadata.version("humming-kernels")
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit("bench_humming: Python has no humming here (pip install humming-kernels)")
    library = args.build / "lib" / "libbench_cuda_product.so"
    if not library.exists():
        raise SystemExit(f"bench_humming: no {library}: build the target bench_cuda_product with CUDA, or name the build with --build")
    trit = Trit(library)
    torch.manual_seed(1)
    torch.cuda.set_stream(torch.cuda.Stream())  # the legacy stream waits for others
    results = []
    for shape in args.shapes.split(","):
        n, k = map(int, shape.split("x"))
        copies = max(1, math.ceil(args.rotated_megabytes * 1e6 / (n * k / 4)))
        t = torch.randint(-1, 2, (n, k), dtype=torch.int8, device="cuda")
        beta = torch.full((1,), BETA, device="cuda")
        if args.group:
            beta = torch.exp2(torch.randint(-9, -5, (n, k // args.group), device="cuda").float())
        ours, theirs = TritWeights(trit, t, beta, args.group, copies), HummingWeights(t, beta, args.group, copies)
        for tokens in map(int, args.tokens.split(",")):
            results.append(measure(ours, theirs, t, beta, tokens, args))
            us, last = results[-1]["microseconds"], results[-1]
            print(f"{n}x{k} M={tokens}: trit {us['trit']:.2f} us, programmatic {us['trit_programmatic']:.2f}, humming {us['humming']:.2f}: "
                  f"{last['ratio_to_trit']:.2f}, {last['ratio_to_trit_programmatic']:.2f}", flush=True)
        del ours, theirs
        torch.cuda.empty_cache()
    found = means(results)
    for one in found:
        print(f"M = {one['tokens']}: humming / trit {one['ratio_to_trit']:.2f} (least {one['least_ratio_to_trit']:.2f}), programmatic "
              f"{one['ratio_to_trit_programmatic']:.2f} ({one['least_ratio_to_trit_programmatic']:.2f})")
    if args.json:
        store(args.json, {"gpu": torch.cuda.get_device_name(0), "humming_kernels": version, "torch": torch.__version__,
                          "cuda": torch.version.cuda, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                          "group": args.group, "rounds": args.rounds, "settle_milliseconds": args.settle, "means": found, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
