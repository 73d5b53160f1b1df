#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Packed ternary layers against llama.cpp's TQ2_0 and TQ1_0 and bitnet.cpp's I2_S, through libraries that you have
built and sources that you have fetched; this project ships none of them.

    external_peers.py --llama BUILD/bin/libggml-cpu.so,BUILD/bin/libggml-base.so --llama-version b9999
                      --bitnet BUILD/bin/libggml-cpu.so,BUILD/bin/libggml-base.so --bitnet-version COMMIT
                      --bitnet-source BITNET --ggml-source GGML
                      --bitnet-tinyblas BUILD/bin/libggml-cpu.so,BUILD/bin/libggml-base.so
                      [--group 64] [--build build] [--backend auto,avx2] [--threads 1,2] [--tokens 1,128] [--shapes NxK,...] [--json FILE]

Name the shared libraries with ggml's CPU half first (bitnet.cpp and llama.cpp of 2024 have one library for both; build
with BUILD_SHARED_LIBS=ON). The peers:

    TQ2_0, TQ1_0     --llama
    Q2_0             --llama with --group: a scale for 64 inputs. This project's layers then have float16 scales for groups of
                     so many inputs, and its other formats are left out.
    I2_S             --bitnet: a build of bitnet.cpp with its llama.cpp, which chooses among its kernels.
    I2_S kernels     --bitnet-source: bitnet.cpp's own kernels (src/ggml-bitnet-mad.cpp) of a checkout. Their time is that
                     of the integer sums, without the quantisation of activations and without scales.
    I2_S, tinyBLAS   --bitnet-tinyblas: llamafile_sgemm_i2s of a build of bitnet.cpp. Since July 2026 its llama.cpp calls
                     this for every M on AVX2 machines (GGML_LLAMAFILE, on by default). Its time is that of fp32 outputs,
                     without the quantisation of activations.

Each subject is a process with the same number of threads. Unless said otherwise, fp32 activations go in, fp32 outputs
come out, and the time includes the quantisation of activations; ours always does. Weights are taken in turn from copies
that exceed the last cache three times, as in a model that decodes; products of --llama and --bitnet are nodes of ggml
graphs, as in llama.cpp. Processes take turns, a few tenths of a second each, so that a machine that slows down slows all
of them; figures are medians, ratios medians of the rounds' ratios. Outputs are compared with a reference in the same
run: this project's bit for bit, the peers' within the error of 8-bit activations (2 %), those that take quantised
activations within the rounding of fp32 (1e-6).
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys

import measuring

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = "2560x2560,6912x2560,2560x6912,4096x4096,14336x4096,4096x14336"
# Relative, root mean square: of 8-bit activations, and of the same integers.
MAX_ERROR = 0.02
MAX_ROUNDING = 1e-6


class Subject:
    """A process that is told "load N K M" and "run SECONDS"."""

    def __init__(self, name: str, command: list, max_error: float = MAX_ERROR):
        self.name, self.max_error = name, max_error
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.greeting = self.answer()

    def answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"external_peers: {self.name} ended (exit code {self.process.wait()})")
        return line.strip()

    def tell(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def last_cache_bytes() -> int:
    """All L3s of the CPUs that this process may use: an AMD processor has one for each core complex."""
    sizes = {}
    for cpu in os.sched_getaffinity(0):
        for path in pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*"):
            if (path / "size").exists() and (path / "level").read_text().strip() == "3":
                sizes[(path / "shared_cpu_list").read_text()] = int((path / "size").read_text().strip().rstrip("K")) * 1024
    return max(sum(sizes.values()), 32 << 20)


def measure(ours: list[Subject], peers: list[Subject], shape: str, tokens: int, args: argparse.Namespace) -> list[dict]:
    """A result for each of our backends, beside the same turns of the peers."""
    outputs, inputs = shape.split("x")
    subjects = ours + peers
    checks = {}
    for subject in subjects:
        words = subject.tell(f"load {outputs} {inputs} {tokens}").split()
        checks[subject.name] = float(words[1]) if len(words) > 1 else 0.0
        if not checks[subject.name] <= subject.max_error:  # NaN too
            raise SystemExit(f"external_peers: {subject.name} {shape}: relative error {checks[subject.name]:.3g}")
    for subject in subjects:
        subject.tell("run 0.05")
    rounds = {subject.name: [] for subject in subjects}
    for _ in range(args.rounds):
        for subject in subjects:
            rounds[subject.name].append(float(subject.tell(f"run {args.seconds}")))
    return [{"out_features": int(outputs), "in_features": int(inputs), "tokens": tokens, "threads": own.threads,
             "backend": own.greeting, "microseconds": statistics.median(rounds[own.name]),
             "peers": [{"name": peer.name, "microseconds": statistics.median(rounds[peer.name]), "relative_error": checks[peer.name],
                        "ratio": statistics.median(a / b for a, b in zip(rounds[peer.name], rounds[own.name]))}
                       for peer in peers]} for own in ours]


def means(results: list[dict]) -> list[dict]:
    groups: dict[tuple, list[float]] = {}
    for result in results:
        for peer in result["peers"]:
            groups.setdefault((result["backend"], result["threads"], result["tokens"], peer["name"]), []).append(peer["ratio"])
    return [{"backend": key[0], "threads": key[1], "tokens": key[2], "peer": key[3], "shapes": len(ratios),
             "ratio": measuring.geometric_mean(ratios), "least_ratio": min(ratios)}
            for key, ratios in sorted(groups.items())]


def store(path: pathlib.Path, versions: dict, results: list[dict], group: int) -> None:
    """Results of earlier runs for other cases are kept."""
    key = "group_peers" if group else "external_peers"
    old = measuring.read_results(path)[1].get(key, {}).get("results", [])
    case = ("backend", "threads", "out_features", "in_features", "tokens")
    new = {tuple(result[key] for key in case) for result in results}
    results = results + [result for result in old if tuple(result[key] for key in case) not in new]
    measuring.store(path, key, {"versions": versions} | ({"group": group} if group else {}) |
                    {"means": means(results), "results": results})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", help="llama.cpp's ggml libraries, comma-separated: TQ2_0, TQ1_0; Q2_0 with --group")
    parser.add_argument("--group", type=int, default=0, help="inputs of a weight scale; 0: one for the matrix")
    parser.add_argument("--bitnet", help="bitnet.cpp's ggml libraries: I2_S")
    parser.add_argument("--bitnet-source", help="checkout of bitnet.cpp: I2_S kernels")
    parser.add_argument("--bitnet-tinyblas", help="bitnet.cpp's ggml libraries: I2_S, tinyBLAS")
    parser.add_argument("--ggml-source", help="checkout of ggml (or llama.cpp/ggml), for the headers of --bitnet-source")
    parser.add_argument("--llama-version", default="unknown")
    parser.add_argument("--bitnet-version", default="unknown")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--backend", default="auto", help="of this project, several by commas")
    parser.add_argument("--threads", default=f"1,{len(os.sched_getaffinity(0))}")
    parser.add_argument("--tokens", default="1,128")
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one turn")
    parser.add_argument("--json", type=pathlib.Path, help='file to add the object "external_peers" (or "group_peers") to')
    args = parser.parse_args()
    if args.group and (args.bitnet or args.bitnet_source or args.bitnet_tinyblas):
        parser.error("--group: bitnet.cpp has no scales for groups")
    if args.bitnet_source and not args.ggml_source:
        parser.error("--bitnet-source needs --ggml-source")
    workers = [(name, MAX_ERROR, ["ggml_worker.py", "--library", path, "--type", kind])
               for name, kind, path in ((("Q2_0", 42, args.llama),) if args.group else
                                        (("TQ2_0", 35, args.llama), ("TQ1_0", 34, args.llama), ("I2_S", 36, args.bitnet))) if path]
    if args.bitnet_source:
        workers.append(("I2_S kernels", MAX_ROUNDING,
                        ["bitnet_worker.py", "--bitnet", args.bitnet_source, "--ggml", args.ggml_source]))
    if args.bitnet_tinyblas:
        workers.append(("I2_S, tinyBLAS", MAX_ROUNDING, ["bitnet_worker.py", "--library", args.bitnet_tinyblas]))
    if not workers:
        parser.error("name at least one peer: --llama, --bitnet, --bitnet-source, --bitnet-tinyblas")

    bitnet = args.bitnet or args.bitnet_source or args.bitnet_tinyblas
    versions = {name: version for name, version, path in (("llama.cpp", args.llama_version, args.llama),
                                                          ("bitnet.cpp", args.bitnet_version, bitnet)) if path}
    results = []
    for threads in sorted({int(count) for count in args.threads.split(",")}):
        ours = [Subject(f"trit {backend}", [args.build / "bin" / "bench_serve", "--backend", backend, "--threads", threads,
                                            "--group", args.group])
                for backend in args.backend.split(",")]
        for own in ours:
            own.threads = threads
        common = ["--threads", threads, "--bytes", 3 * last_cache_bytes()]
        peers = [Subject(name, [sys.executable, ROOT / "bench" / script, *options, *common], max_error)
                 for name, max_error, (script, *options) in workers]
        for tokens in (int(count) for count in args.tokens.split(",")):
            for shape in args.shapes.split(","):
                for result in measure(ours, peers, shape, tokens, args):
                    results.append(result)
                    texts = "  ".join(f"{p['name']} {p['microseconds']:.1f} us = {p['ratio']:.2f}x" for p in result["peers"])
                    print(f"{threads} thread(s) {shape:>11} M={tokens:<4} {result['backend']} {result['microseconds']:.1f} us  {texts}",
                          flush=True)
                if args.json:  # as it goes: a run that is stopped keeps what it has
                    store(args.json, versions, results, args.group)
        for subject in ours + peers:
            subject.close()
    for mean in means(results):
        print(f"{mean['backend']}, {mean['threads']} thread(s), M={mean['tokens']}, {mean['peer']}: {mean['ratio']:.2f}x (geometric mean of "
              f"{mean['shapes']}; minimum {mean['least_ratio']:.2f})")


if __name__ == "__main__":
    main()
