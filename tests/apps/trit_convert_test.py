# SPDX-License-Identifier: MIT
"""trit convert and trit diff, and trit info on the files of other projects: options, exit codes, messages, limits."""
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import unittest

from trit_files import TRIT, CommandTest, f32, image_model, read_safetensors, ternary, write_safetensors

OWN = {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply"}


class ConvertTest(CommandTest):
    def matrices(self, name: str, rows: int = 8, columns: int = 512, layers: int = 2, seed: int = 1):
        generator = random.Random(seed)
        tensors = {}
        for layer in range(layers):
            for part, tensor in ternary(generator, rows, columns, 0.25 + layer).items():
                tensors[f"l{layer}.{part}"] = tensor
        tensors["l0.bias"] = ("F32", [rows], f32([1.0] * rows))
        return write_safetensors(self.root / name, tensors, OWN)

    def measured(self, *arguments) -> tuple[int, float]:
        """Peak resident kilobytes and processor seconds of the command. Measured by a separate interpreter: a process
        counts the resident memory that its parent had when it was created."""
        script = ("import resource, subprocess, sys\n"
                  "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
                  "usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
                  "print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)")
        done = subprocess.run([sys.executable, "-c", script, TRIT, *map(str, arguments)], check=True,
                              capture_output=True, text=True)
        kilobytes, seconds = done.stdout.split()
        return int(kilobytes), float(seconds)

    def assert_at_most(self, figure: float, bound: float, what) -> None:
        """Not under a sanitizer (TRIT_SANITIZED), whose memory and time would be measured instead."""
        if "TRIT_SANITIZED" not in os.environ:
            self.assertLessEqual(figure, bound, what)

    def test_there_and_back(self) -> None:
        own = self.matrices("own")
        for target in (("hf",), ("hf", "--scale-convention", "divide"), ("hf", "--shard-size", "4KB"),
                       ("gguf", "--type", "tq1_0"), ("gguf", "--type", "tq2_0"), ("gguf", "--type", "q2_0"),
                       ("gguf", "--type", "pq2_0"), ("gguf", "--type", "ptq1_0")):
            with self.subTest(target=target):
                other, back = self.root / "-".join(target), self.root / "back"
                report = self.json("convert", own, other, "--to", *target)
                self.assertEqual((report["input_format"], report["output_format"], report["ternary"]),
                                 ("trit", target[0], 2))
                self.json("convert", other, back, "--to", "trit")
                self.assertEqual(read_safetensors(back)[0], read_safetensors(own)[0])
                self.assertEqual(self.succeeds("diff", own, other).stdout, "equal: 3 tensors\n")
                info = self.json("info", other, "--codes")
                self.assertEqual(info["format"], target[0])
                rows = {row["name"]: row for row in info["layers"]}
                self.assertEqual(rows["l1.weight"]["shape"], [8, 512])
                self.assertEqual(rows["l1.weight"]["scale"], [1.25])
                self.assertEqual(sum(rows["l1.weight"]["codes"].values()), 8 * 512)
                self.assertIn("l1.weight", self.succeeds("info", other).stdout)

    def test_diff_exit_codes(self) -> None:
        a, b = self.matrices("a"), self.matrices("b", seed=2)
        self.assertEqual(self.succeeds("diff", a, a).stdout, "equal: 3 tensors\n")
        self.assertEqual(self.succeeds("diff", a, a, "--tolerance", "0.001").stdout, "equal within 0.001: 3 tensors\n")
        equal = self.json("diff", a, a, "--tolerance", "0.001")
        self.assertEqual((equal["equal"], equal["tensors"], equal["tolerance"], equal["differences"]), (True, 3, 0.001, []))
        different = self.trit("diff", a, b)
        self.assertEqual(different.returncode, 1)
        self.assertRegex(different.stdout, r"l0\.weight: [0-9]+ of 4096 codes")
        found = json.loads(self.trit("diff", a, b, "--json").stdout)
        self.assertEqual((found["equal"], [entry["name"] for entry in found["differences"]]),
                         (False, ["l0.weight", "l1.weight"]))
        self.fails("diff", a, self.root / "missing", code=2, says="missing")

    def test_diff_of_what_is_no_number(self) -> None:
        a, b = self.root / "a", self.root / "b"
        for x, y, text in ((math.nan, 2, "NaN against 2"), (2, math.nan, "2 against NaN"), (math.inf, 2, "inf against 2"),
                           (math.inf, -math.inf, "inf against -inf"), (math.nan, math.inf, "NaN against inf")):
            write_safetensors(a, {"w": ("F32", [2, 2], f32([1, 1, x, 1]))})
            write_safetensors(b, {"w": ("F32", [2, 2], f32([1, 1, y, 1]))})
            for options in ((), ("--tolerance", "0.5"), ("--tolerance", "1")):
                result = self.trit("diff", a, b, *options)
                self.assertEqual((result.returncode, result.stdout), (1, f"w: 1 of 4 elements; {text} at [1, 0]\n"))
            self.assertEqual(self.succeeds("diff", a, a).stdout, "equal: 1 tensor\n")
        # A scale that is no number is an error that names the tensor, not a difference.
        own = self.matrices("own")
        tensors, metadata = read_safetensors(own)
        tensors["l0.weight_scale"] = ("F32", [1], f32([math.nan]))
        write_safetensors(a, tensors, OWN)
        for pair in ((own, a), (a, own), (a, a)):
            self.fails("diff", *pair, code=2, says="l0.weight")

    def test_counts_what_was_written(self) -> None:
        own = self.matrices("own")  # l0.weight, l0.bias, l1.weight
        size = own.stat().st_size
        (self.root / "map").write_text(json.dumps({"l0.*": None}))
        for source, target in (("own", "gguf"), ("own", "trit"), ("own", "hf"), ("gguf", "trit"), ("hf", "gguf")):
            with self.subTest(source=source, target=target):
                self.succeeds("convert", own, self.root / source, "--to", source) if source != "own" else None
                out = self.root / f"{source}-{target}"
                report = self.json("convert", self.root / source, out, "--to", target, "--map", self.root / "map")
                self.assertEqual((report["tensors"], report["ternary"]), (1, 1))
                self.assertEqual(len([row for row in self.json("info", out)["layers"]]), 1)
                report = self.json("convert", self.root / source, self.root / f"all-{source}-{target}", "--to", target)
                self.assertEqual((report["tensors"], report["ternary"]), (3, 2))
                if source in ("gguf", "hf"):
                    shutil.rmtree(self.root / source) if source == "hf" else (self.root / source).unlink()
        result = self.trit("convert", own, own, "--to", "gguf", "--json")  # onto itself
        report = json.loads(result.stdout)
        self.assertEqual((report["input_bytes"], report["output_bytes"]), (size, own.stat().st_size))
        self.assertNotEqual(size, own.stat().st_size)
        self.assertIn(f"3 tensors, 2 of them ternary; {own.stat().st_size:,} bytes from {size:,}", result.stderr)

    def test_the_network_is_checked(self) -> None:
        source = image_model(self.root / "net")
        tensors, metadata = read_safetensors(source)
        metadata = {**metadata, "trit.model": metadata["trit.model"].replace('"relu"', '"gelu"')}
        del metadata["trit.crc32c"]
        write_safetensors(source, tensors, metadata)
        for target in ("trit", "gguf"):
            self.fails("convert", source, self.root / "out", "--to", target, says=("gelu", "node 2"))
        self.assertEqual([path.name for path in self.root.iterdir()], ["net"])

    def test_what_cannot_be_held_leaves_nothing(self) -> None:
        own = self.matrices("own", rows=6, columns=320)
        for target, text in ((("hf",), "6 rows, transformers packs multiples of 4"),
                             (("gguf",), "rows of 320 weights, TQ2_0 takes multiples of 256")):
            self.fails("convert", own, self.root / "out", "--to", *target, says=('"l0.weight"', text, "gguf with q2_0"))
        self.fails("convert", image_model(self.root / "net"), self.root / "out", "--to", "hf",
                   says=('"fc1" has a norm', '"fc2" has none'))
        self.assertEqual({path.name for path in self.root.iterdir()}, {"own", "net"})

    def test_usage(self) -> None:
        own = self.matrices("own")
        for arguments in (("convert", own), ("convert", own, "x"), ("convert", own, "x", "--to", "onnx"),
                          ("convert", own, "x", "--to", "gguf", "--type", "q4_0"),
                          ("convert", own, "x", "--to", "hf", "--scale-convention", "guess"),
                          ("convert", own, "x", "--to", "hf", "--map", "missing"), ("diff", own)):
            self.fails(*arguments, code=2)

    def test_the_convention_is_never_guessed(self) -> None:
        tensors = {"fc.weight": ("U8", [1, 4], bytes([0x55] * 3 + [0x95])), "fc.weight_scale": ("F32", [1], f32([4]))}
        path = write_safetensors(self.root / "model.safetensors", tensors)
        out = self.root / "out"
        for command in (("info", path), ("convert", path, out, "--to", "trit")):
            self.fails(*command, says="--scale-convention multiply or divide")
        for convention, scale in (("multiply", 4.0), ("divide", 0.25)):
            self.succeeds("convert", path, out, "--to", "trit", "--scale-convention", convention)
            self.assertEqual(read_safetensors(out)[0]["fc.weight_scale"][2], f32([scale]))

    def test_names(self) -> None:
        own = self.matrices("own")
        (self.root / "map").write_text(json.dumps({r"l([0-9])\.(.*)": "blk.$1.$2"}))
        self.succeeds("convert", own, self.root / "out", "--to", "gguf", "--map", self.root / "map",
                      "--architecture", "mine")
        info = self.json("info", self.root / "out")
        self.assertEqual([row["name"] for row in info["layers"]], ["blk.0.bias", "blk.0.weight", "blk.1.weight"])
        self.assertIn('"mine"', info["description"])

    def test_a_type_is_for_ternary_matrices(self) -> None:
        floats = write_safetensors(self.root / "floats", {"w.weight": ("F32", [2, 2], f32([1.0] * 4))})
        for kind in ("tq1_0", "tq2_0", "q2_0", "pq2_0", "ptq1_0"):
            self.fails("convert", floats, self.root / "out", "--to", "gguf", "--type", kind,
                       says=("floats", "no ternary matrix", kind.upper(), "trit pack"))
        self.assertFalse((self.root / "out").exists())
        self.succeeds("convert", floats, self.root / "out", "--to", "gguf")
        self.succeeds("diff", floats, self.root / "out")

    def test_scales_that_float16_holds_badly(self) -> None:
        """A warning for a scale below the normal range of float16, but not for that of a zero block."""
        codes = {"small": b"\x34" * 64, "zero": b"\0" * 64}
        for name, scale in (("small", 8e-8), ("zero", 1e-5)):
            own = write_safetensors(self.root / name, {"w.weight": ("U8", [1, 64], codes[name]),
                                                       "w.weight_scale": ("F32", [1], f32([scale]))}, OWN)
            said = self.succeeds("convert", own, self.root / "x", "--to", "gguf").stderr
            if name == "small":
                self.assertRegex(said, r'warning: tensor "w\.weight": the scale 8e-08 .* 25\.49[0-9]* % off')
                self.assertEqual(self.trit("diff", own, self.root / "x", "--tolerance", "0.001").returncode, 1)
            else:
                self.assertNotIn("warning", said)
                self.succeeds("diff", own, self.root / "x", "--tolerance", "0.001")
                self.succeeds("convert", self.root / "x", self.root / "back", "--to", "trit")
                self.succeeds("diff", own, self.root / "back")

    def test_a_large_file_is_looked_at_by_its_headers(self) -> None:
        """1 GB: at most 50 ms and 32 MB. The file is sparse; untouched pages cost nothing."""
        path = self.sparse("large", {"w.weight": ("U8", [1 << 15, 1 << 15], 1 << 30)}, OWN)
        self.succeeds("info", path)
        kilobytes, seconds = self.measured("info", path)
        self.assert_at_most(kilobytes, 32 * 1024, "info")
        self.assert_at_most(seconds, 0.05, "info")

    def test_memory_of_a_conversion(self) -> None:
        """At most the largest tensor and 64 MB: here eight tensors of 32 MB."""
        rows, columns = 1 << 13, 1 << 14
        path = self.sparse("own", {f"w{i}.weight": ("U8", [rows, columns // 4], rows * columns // 4) for i in range(8)}, OWN)
        for source, target in ((path, "hf"), (path, "gguf"), (path, "trit"), (self.root / "gguf", "back"),
                               (self.root / "hf", "again")):
            to = {"back": "trit", "again": "trit"}.get(target, target)
            kilobytes, _ = self.measured("convert", source, self.root / target, "--to", to)
            self.assert_at_most(kilobytes, (32 + 64) * 1024, (source.name, target))
        floats = self.sparse("floats", {f"w{i}.weight": ("BF16", [4096, 4096], 1 << 25) for i in range(8)})
        kilobytes, _ = self.measured("pack", floats, self.root / "packed")
        self.assert_at_most(kilobytes, (32 + 64) * 1024, "pack")

    def sparse(self, name: str, tensors: dict, metadata: dict | None = None):
        """A sparse file whose tensors are zeros: name -> (dtype, shape, bytes), after the scales of packed matrices."""
        header: dict = {"__metadata__": metadata} if metadata else {}
        offset, scales = 0, b""
        if metadata:
            for tensor in tensors:
                header[f"{tensor}_scale"] = {"dtype": "F32", "shape": [1], "data_offsets": [offset, offset + 4]}
                offset += 4
                scales += f32([0.5])
        for tensor, (dtype, shape, size) in tensors.items():
            header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = self.root / name
        path.write_bytes(len(text).to_bytes(8, "little") + text + scales)
        os.truncate(path, 8 + len(text) + offset)
        return path

    def test_an_interrupt_leaves_nothing(self) -> None:
        """16 billion weights: seconds of work for each of them. The signal is sent when the output exists."""
        rows, columns = 1 << 17, 1 << 17
        own = self.sparse("own", {"w.weight": ("U8", [rows, columns // 4], rows * columns // 4)}, OWN)
        floats = self.sparse("floats", {"w.weight": ("BF16", [1 << 16, 1 << 17], 1 << 34)})
        before = sorted(path.name for path in self.root.iterdir())
        calls = (("convert", own, self.root / "out", "--to", "gguf", "--type", "tq1_0"),
                 ("convert", own, self.root / "out", "--to", "hf"), ("convert", own, self.root / "out", "--to", "trit"),
                 ("pack", floats, self.root / "out"))
        for call, number in itertools.product(calls, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            with self.subTest(call=call[0:1] + call[3:], number=number):
                process = subprocess.Popen([TRIT, *map(str, call)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                           text=True)
                begun = time.monotonic()
                while time.monotonic() < begun + 30 and process.poll() is None:
                    # pack reads everything once before it writes.
                    if len(list(self.root.iterdir())) > len(before) or (call[0] == "pack" and time.monotonic() > begun + 0.5):
                        break
                    time.sleep(0.01)
                self.assertIsNone(process.poll(), "ended before the signal came")
                process.send_signal(number)
                out, err = process.communicate(timeout=60)
                self.assertEqual((process.returncode, out, err), (130, "", "trit: interrupted\n"))
                self.assertEqual(sorted(path.name for path in self.root.iterdir()), before)

    def test_a_full_disk(self) -> None:
        own = self.matrices("own", rows=256, columns=4096)
        for target in ("hf", "gguf", "trit"):
            self.fails("convert", own, self.root / "out", "--to", target, says="cannot be written",
                       preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                                           resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))))
            self.assertEqual([path.name for path in self.root.iterdir()], ["own"])


if __name__ == "__main__":
    unittest.main()
