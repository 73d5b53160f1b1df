# SPDX-License-Identifier: MIT
"""trit convert and trit diff, and trit info on the files of other projects: options, exit codes, messages, limits."""
import json
import os
import random
import resource
import signal
import subprocess
import sys
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
        """Peak resident kilobytes and processor seconds of the command. Measured by an interpreter of its own: a
        process counts what its parent had resident when it was made."""
        script = ("import resource, subprocess, sys\n"
                  "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
                  "usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
                  "print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)")
        done = subprocess.run([sys.executable, "-c", script, TRIT, *map(str, arguments)], check=True,
                              capture_output=True, text=True)
        kilobytes, seconds = done.stdout.split()
        return int(kilobytes), float(seconds)

    def test_there_and_back(self) -> None:
        own = self.matrices("own")
        for target in (("hf",), ("hf", "--scale-convention", "divide"), ("hf", "--shard-size", "4KB"),
                       ("gguf", "--type", "tq1_0"), ("gguf", "--type", "tq2_0"), ("gguf", "--type", "q2_0")):
            with self.subTest(target=target):
                other, back = self.root / "-".join(target), self.root / "back"
                report = self.json("convert", own, other, "--to", *target)
                self.assertEqual((report["input_format"], report["output_format"], report["ternary"]),
                                 ("trit", target[0], 2))
                self.json("convert", other, back, "--to", "trit")
                self.assertEqual(read_safetensors(back)[0], read_safetensors(own)[0])
                self.assertEqual(self.succeeds("diff", own, other).stdout, "")
                info = self.json("info", other, "--codes")
                self.assertEqual(info["format"], target[0])
                rows = {row["name"]: row for row in info["layers"]}
                self.assertEqual(rows["l1.weight"]["shape"], [8, 512])
                self.assertEqual(rows["l1.weight"]["scale"], [1.25])
                self.assertEqual(sum(rows["l1.weight"]["codes"].values()), 8 * 512)
                self.assertIn("l1.weight", self.succeeds("info", other).stdout)

    def test_diff_exit_codes(self) -> None:
        a, b = self.matrices("a"), self.matrices("b", seed=2)
        self.assertEqual(self.trit("diff", a, a).returncode, 0)
        different = self.trit("diff", a, b)
        self.assertEqual(different.returncode, 1)
        self.assertRegex(different.stdout, r"l0\.weight: [0-9]+ of 4096 codes")
        found = json.loads(self.trit("diff", a, b, "--json").stdout)
        self.assertEqual((found["equal"], [entry["name"] for entry in found["differences"]]),
                         (False, ["l0.weight", "l1.weight"]))
        self.fails("diff", a, self.root / "missing", code=2, says="missing")

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
            self.fails(*command, says="--scale-convention multiply|divide")
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

    def test_a_large_file_is_looked_at_by_its_headers(self) -> None:
        """1 GB: at most 50 ms and 32 MB. The file is sparse; what is not touched costs nothing."""
        header = {"__metadata__": OWN, "w.weight": {"dtype": "U8", "shape": [1 << 15, 1 << 15],
                                                    "data_offsets": [4, 4 + (1 << 30)]},
                  "w.weight_scale": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = self.root / "large"
        path.write_bytes(len(text).to_bytes(8, "little") + text + f32([0.5]))
        os.truncate(path, 8 + len(text) + 4 + (1 << 30))
        self.succeeds("info", path)
        kilobytes, seconds = self.measured("info", path)
        self.assertLess(kilobytes, 32 * 1024)
        self.assertLess(seconds, 0.05)

    def test_memory_of_a_conversion(self) -> None:
        """At most the largest tensor and 64 MB: here eight tensors of 32 MB."""
        rows, columns = 1 << 13, 1 << 14
        header = {"__metadata__": OWN}
        offset = 32
        for i in range(8):
            header[f"w{i}.weight_scale"] = {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
            header[f"w{i}.weight"] = {"dtype": "U8", "shape": [rows, columns // 4],
                                      "data_offsets": [offset, offset + rows * columns // 4]}
            offset += rows * columns // 4
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = self.root / "own"
        path.write_bytes(len(text).to_bytes(8, "little") + text + f32([0.5] * 8))
        os.truncate(path, 8 + len(text) + offset)
        for target in ("hf", "gguf", "trit"):
            kilobytes, _ = self.measured("convert", path, self.root / target, "--to", target)
            self.assertLess(kilobytes, (32 + 64) * 1024, target)

    def test_an_interrupt_leaves_nothing(self) -> None:
        own = self.matrices("own", rows=2048, columns=8192, layers=1)
        process = subprocess.Popen([TRIT, "convert", own, self.root / "out", "--to", "gguf", "--type", "tq1_0"],
                                   stderr=subprocess.DEVNULL)
        process.send_signal(signal.SIGINT)
        self.assertIn(process.wait(), (130, -signal.SIGINT, 0))  # before its handler, during, or after the work
        if process.returncode != 0:
            self.assertEqual([path.name for path in self.root.iterdir()], ["own"])

    def test_a_full_disk(self) -> None:
        own = self.matrices("own", rows=256, columns=4096)
        for target in ("hf", "gguf", "trit"):
            self.fails("convert", own, self.root / "out", "--to", target, says="cannot be written",
                       preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                                           resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))))
            self.assertEqual([path.name for path in self.root.iterdir()], ["own"])


if __name__ == "__main__":
    unittest.main()
