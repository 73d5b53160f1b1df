#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reading, loading and converting large files, against cat and dd on the same bytes.

    bench_io.py [--trit build/bin/trit] [--folder DIR] [--results bench/results] [--rounds 5] [CASE ...]

Cases (all if none is named):
  info     trit info on files of 1 GB: wall time and resident memory        <= 50 ms, <= 32 MB
  load     a packed model of 530 MB from its file to its first output       <= 2.0 x cat of the same bytes
  import   500 million weights of transformers to the stored form, 1 thread >= 500 MB/s of input
  convert  2.4 billion parameters to every format                           >= the lesser of 500 MB/s and half of what
                                                                            dd copies, memory <= largest tensor + 64 MB
  pack     1.3 billion bf16 weights made ternary                            memory <= largest tensor + 64 MB

The files hold random weights and are made in a temporary folder beside --folder (8 GB are needed there); the page cache
is warm. Programs take turns within a round; figures are medians over rounds. The object "io" of
RESULTS/<machine>.json gets the figures of the cases that ran. Outputs are checked: what was converted is compared with
its source by trit diff.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

import measuring
import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent
MB = 1e6
RANDOM = numpy.random.default_rng(20240611)
OWN = {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply"}
# The child is started by an interpreter of its own: a process counts what its parent had resident when it was made.
MEASURE = """
import json, os, resource, sys, time
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ,
                      file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]))
"""

BACK = """
import mmap
for i in range(2):
    with mmap.mmap(-1, 1_600_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, len(memory), 4096):
            memory[at] = 1
"""


def measured(*command, threads: int | None = None) -> tuple[float, int]:
    """Wall seconds and peak resident bytes."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, command)], capture_output=True, text=True,
                          env=environment)
    seconds, peak, code = json.loads(done.stdout)
    if code != 0:
        sys.exit(f"{command}: exit code {code}\n{done.stderr}")
    return seconds, peak


def interleaved(rounds: int, runs: dict, before=lambda: None) -> dict:
    """name -> (median seconds, largest peak)."""
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before()
            found[name].append(run())
    return {name: (statistics.median(seconds for seconds, _ in values), max(peak for _, peak in values))
            for name, values in found.items()}


class File:
    """A safetensors file whose data are drawn while they are written."""

    def __init__(self, metadata: dict | None = None):
        self.header = {"__metadata__": metadata} if metadata else {}
        self.fill = []
        self.bytes = 0

    def add(self, name: str, dtype: str, shape: list[int], size: int, draw) -> "File":
        self.header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [self.bytes, self.bytes + size]}
        self.fill.append((size, draw))
        self.bytes += size
        return self

    def save(self, path: pathlib.Path) -> pathlib.Path:
        text = json.dumps(self.header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for size, draw in self.fill:
                while size > 0:
                    part = draw(min(size, 1 << 24))
                    file.write(part)
                    size -= len(part)
        return path


def table(fields: list[int]) -> numpy.ndarray:
    """Random bytes to random bytes of four ternary codes."""
    valid = [a | b << 2 | c << 4 | d << 6 for a in fields for b in fields for c in fields for d in fields]
    return numpy.array([valid[i % 81] for i in range(256)], numpy.uint8)


ROWS_2BIT, OFFSET_CODES = table([0, 1, 3]), table([0, 1, 2])


def codes(lookup: numpy.ndarray):
    return lambda size: lookup[numpy.frombuffer(RANDOM.bytes(size), numpy.uint8)].tobytes()


def constant(value: bytes):
    return lambda size: value


def bfloat16(size: int) -> bytes:
    """Random signs and mantissas, magnitudes 2^-8 .. 2^-5."""
    words = numpy.frombuffer(RANDOM.bytes(size), numpy.uint16)
    return ((words & 0x81ff) | 0x3b80).tobytes()


def own_matrix(file: File, name: str, rows: int, columns: int) -> None:
    file.add(name, "U8", [rows, columns // 4], rows * columns // 4, codes(ROWS_2BIT))


def own_scales(file: File, names: list[str]) -> None:
    for name in names:
        file.add(name + "_scale", "F32", [1], 4, constant(struct.pack("<f", 2.0 ** -6)))


class Bench:
    def __init__(self, trit: pathlib.Path, folder: pathlib.Path, rounds: int):
        self.trit, self.folder, self.rounds = trit, folder, rounds

    def say(self, text: str) -> None:
        print(text, flush=True)

    def settle(self) -> None:
        """What was written before is not written while the next program runs."""
        os.sync()

    def in_memory(self) -> pathlib.Path:
        """A file that does not exist yet, in memory where there are such files."""
        return pathlib.Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else self.folder) / f"trit-bench-{os.getpid()}"

    def back_memory(self) -> None:
        """Virtual machines give free memory back to their host, and to get it again costs 4 ms a megabyte on some: what
        a program takes has been used just before it starts, as on a machine of its own."""
        subprocess.run([sys.executable, "-c", BACK], check=True)

    def info(self) -> dict:
        own = File(OWN)
        names = [f"layers.{i}.weight" for i in range(64)]
        own_scales(own, names)
        for name in names:
            own_matrix(own, name, 4096, 16384)
        files = {"trit": own.save(self.folder / "info")}
        subprocess.run([self.trit, "convert", files["trit"], self.folder / "info.gguf", "--to", "gguf"], check=True,
                       stderr=subprocess.DEVNULL)
        subprocess.run([self.trit, "convert", files["trit"], self.folder / "info.hf", "--to", "hf"], check=True,
                       stderr=subprocess.DEVNULL)
        files.update(gguf=self.folder / "info.gguf", hf=self.folder / "info.hf")
        found = interleaved(4 * self.rounds, {name: lambda path=path: measured(self.trit, "info", path)
                                              for name, path in files.items()})
        result = {}
        for name, (seconds, peak) in found.items():
            size = sum(part.stat().st_size for part in ([files[name]] if files[name].is_file() else files[name].iterdir()))
            result[name] = {"file_bytes": size, "ms": 1e3 * seconds, "peak_mb": peak / MB}
            self.say(f"info     {name:8} {size / 1e9:.2f} GB: {1e3 * seconds:5.1f} ms, {peak / MB:5.1f} MB resident")
        return result

    def load(self) -> dict:
        sizes = [4096, 14336]
        count = 36
        graph = {"input": {"shape": [sizes[0]]}, "nodes": [{"op": "input"}] + [
            {"op": "bit_linear", "name": f"fc{i}", "inputs": [i], "norm": "none"} for i in range(count)]}
        file = File({**OWN, "trit.model": json.dumps(graph)})
        names = [f"fc{i}.weight" for i in range(count)]
        own_scales(file, names)
        for i, name in enumerate(names):
            own_matrix(file, name, sizes[1 - i % 2], sizes[i % 2])
        plain = file.save(self.folder / "plain")
        model, x = self.folder / "model", self.folder / "x"
        y = self.in_memory()  # `trit run` waits until the disk has its output: 1 to 5 ms for these 16 KB
        # Written by the library, the file has a checksum, which loading verifies.
        subprocess.run([self.trit, "convert", plain, model, "--to", "trit"], check=True, stderr=subprocess.DEVNULL)
        plain.unlink()
        File().add("x", "F32", [1, sizes[0]], 4 * sizes[0], lambda size: RANDOM.standard_normal(
            size // 4).astype(numpy.float32).tobytes()).save(x)
        self.settle()
        try:
            found = interleaved(2 * self.rounds + 1, {
                "load": lambda: measured(self.trit, "run", model, "--input", x, "--output", y),
                "cat": lambda: measured("cat", model)}, self.back_memory)
        finally:
            y.unlink(missing_ok=True)
        size = model.stat().st_size
        ratio = found["load"][0] / found["cat"][0]
        self.say(f"load     {size / MB:.0f} MB to its first output: {1e3 * found['load'][0]:.0f} ms, cat "
                 f"{1e3 * found['cat'][0]:.0f} ms: {ratio:.2f} x")
        return {"file_bytes": size, "ms": 1e3 * found["load"][0], "cat_ms": 1e3 * found["cat"][0], "ratio_to_cat": ratio,
                "peak_mb": found["load"][1] / MB}

    def hf_model(self, name: str, matrices: list[tuple[int, int]], embedding: tuple[int, int] | None,
                 shards: int) -> pathlib.Path:
        folder = self.folder / name
        folder.mkdir()
        weight_map = {}
        for shard in range(shards):
            file = File()
            file_name = f"model-{shard + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
            if shard == 0 and embedding:
                file.add("model.embed_tokens.weight", "BF16", list(embedding), 2 * embedding[0] * embedding[1], bfloat16)
            for i, (rows, columns) in list(enumerate(matrices))[shard::shards]:
                file.add(f"model.layers.{i}.proj.weight", "U8", [rows // 4, columns], rows * columns // 4,
                         codes(OFFSET_CODES))
                file.add(f"model.layers.{i}.proj.weight_scale", "BF16", [1], 2, constant(b"\x80\x3c"))
            file.save(folder / file_name)
            weight_map.update({tensor: file_name for tensor in file.header})
        if shards > 1:
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        (folder / "config.json").write_text(json.dumps(
            {"quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                     "quantization_mode": "offline"}}))
        return folder

    def import_(self) -> dict:
        matrices = [(8192, 8192)] * 8
        model = self.hf_model("import", matrices, None, 2)
        # The bar is about reading and repacking, the disk is the case convert's.
        out = self.in_memory()
        try:
            size = sum(part.stat().st_size for part in model.iterdir())
            found = interleaved(2 * self.rounds + 1, {
                "import": lambda: measured(self.trit, "convert", model, out, "--to", "trit", threads=1)},
                self.back_memory)
            subprocess.run([self.trit, "diff", model, out], check=True)
        finally:
            out.unlink(missing_ok=True)
        seconds, peak = found["import"]
        weights = sum(rows * columns for rows, columns in matrices)
        self.say(f"import   {weights / 1e6:.0f} M weights, {size / MB:.0f} MB: {1e3 * seconds:.0f} ms, "
                 f"{size / MB / seconds:.0f} MB/s, one thread")
        return {"weights": weights, "input_bytes": size, "ms": 1e3 * seconds, "mb_per_second": size / MB / seconds,
                "peak_mb": peak / MB}

    def convert(self) -> dict:
        # The shapes of BitNet b1.58 2B-4T: 30 layers, 2.08 billion ternary weights and a bf16 embedding of 0.33.
        layer = [(2560, 2560), (640, 2560), (640, 2560), (2560, 2560), (6912, 2560), (6912, 2560), (2560, 6912)]
        embedding = (128256, 2560)
        model = self.hf_model("convert", layer * 30, embedding, 2)
        size = sum(part.stat().st_size for part in model.iterdir())
        largest = 2 * embedding[0] * embedding[1]
        targets = {"trit": ["--to", "trit"], "hf": ["--to", "hf", "--scale-convention", "divide"],
                   "tq1_0": ["--to", "gguf", "--type", "tq1_0"], "tq2_0": ["--to", "gguf", "--type", "tq2_0"],
                   "q2_0": ["--to", "gguf", "--type", "q2_0"]}
        out = self.folder / "out"

        def fresh() -> None:
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
            self.settle()

        weights = [path for path in sorted(model.iterdir()) if path.suffix == ".safetensors"]
        copy = "for f in " + " ".join(map(str, weights)) + f"; do cat $f; done | dd of={out} bs=1M iflag=fullblock conv=fsync"
        runs = {"dd": lambda: measured("sh", "-c", copy + " 2>/dev/null")}
        for name, options in targets.items():
            runs[name] = lambda options=options: measured(self.trit, "convert", model, out, *options)
        found = interleaved(self.rounds, runs, fresh)
        disk = size / MB / found["dd"][0]
        bar = min(500, disk / 2)
        self.say(f"convert  {size / MB:.0f} MB, dd copies {disk:.0f} MB/s: bar {bar:.0f} MB/s, {largest / MB + 64:.0f} MB")
        result = {"input_bytes": size, "dd_mb_per_second": disk, "bar_mb_per_second": bar,
                  "bar_peak_mb": largest / MB + 64, "to": {}}
        for name, options in targets.items():
            seconds, peak = found[name]
            fresh()
            subprocess.run([self.trit, "convert", model, out, *options], check=True, stderr=subprocess.DEVNULL)
            subprocess.run([self.trit, "diff", model, out], check=True)
            result["to"][name] = {"seconds": seconds, "mb_per_second": size / MB / seconds, "peak_mb": peak / MB}
            self.say(f"convert  to {name:6} {seconds:5.2f} s, {size / MB / seconds:5.0f} MB/s, {peak / MB:5.0f} MB resident")
        fresh()
        return result

    def pack(self) -> dict:
        rows, columns, count = 8192, 8192, 20
        file = File()
        for i in range(count):
            file.add(f"layers.{i}.weight", "BF16", [rows, columns], 2 * rows * columns, bfloat16)
        path, out = file.save(self.folder / "floats"), self.folder / "packed"
        found = interleaved(self.rounds, {
            "pack": lambda: measured(self.trit, "pack", path, out),
            "dd": lambda: measured("sh", "-c", f"dd if={path} of={out} bs=1M conv=fsync 2>/dev/null")}, self.settle)
        size, largest = path.stat().st_size, 2 * rows * columns
        (seconds, peak), copied = found["pack"], found["dd"][0]
        self.say(f"pack     {size / MB:.0f} MB of bf16: {seconds:.2f} s, {size / MB / seconds:.0f} MB/s (dd copies "
                 f"{size / MB / copied:.0f}), {peak / MB:.0f} MB resident (bar {largest / MB + 64:.0f})")
        return {"input_bytes": size, "seconds": seconds, "mb_per_second": size / MB / seconds,
                "dd_mb_per_second": size / MB / copied, "peak_mb": peak / MB, "bar_peak_mb": largest / MB + 64}


def store(results: pathlib.Path, found: dict) -> None:
    results.mkdir(parents=True, exist_ok=True)
    path, data = measuring.read_results(results)
    measuring.store(path, "io", {**data.get("io", {}), **found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ("info", "load", "import", "convert", "pack")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(cases))
    parser.add_argument("--trit", type=pathlib.Path, default=ROOT / "build" / "bin" / "trit")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / ".cache")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench" / "results")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for case in args.cases:
        if case not in cases:
            parser.error(f"no case {case}; there are {', '.join(cases)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    for case in args.cases or cases:
        with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-io-") as folder:
            bench = Bench(args.trit.resolve(), pathlib.Path(folder), args.rounds)
            store(args.results, {case: getattr(bench, "import_" if case == "import" else case)()})


if __name__ == "__main__":
    main()
