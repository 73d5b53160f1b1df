# SPDX-License-Identifier: MIT
"""trit with damaged files, full disks and signals: a message and an exit code, never a crash or a partial
output."""
import os
import random
import resource
import signal
import subprocess
import time
import unittest

from trit_files import (TRIT, CommandTest, chain, checksum, f32, image_model, read_safetensors, stored_form,
                        write_safetensors)

COPIES = 200


def damaged(data: bytes, generator: random.Random, copy: int, first: int = 0, last: int | None = None) -> bytes:
    """A copy with one bit flipped in [first, last), cut short, or of another size."""
    kind = copy % 4
    if kind < 2:
        at = generator.randrange(first, len(data) if last is None else last)
        return data[:at] + bytes([data[at] ^ (1 << generator.randrange(8))]) + data[at + 1:]
    if kind == 2:
        return data[:generator.randrange(len(data))]
    if generator.random() < 0.5:
        return data + generator.randbytes(generator.randrange(1, 100))
    at = generator.randrange(len(data))
    return data[:at] + data[at + generator.randrange(1, 50):]


class DamageTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        seed = int(os.environ.get("TRIT_TEST_SEED", random.randrange(1 << 32)))
        print(f"TRIT_TEST_SEED={seed}")
        self.generator = random.Random(seed)

    def test_copies_of_a_model(self) -> None:
        path, output = self.root / "model.safetensors", self.root / "predictions"
        whole = image_model(path).read_bytes()
        self.assertEqual(self.json("eval", path, "--limit", 1)["images"], 1)
        # A flip in the name of the checksum's entry makes it another entry: the contents are whole, and load.
        entry = range(whole.index(b"trit.crc32c"), whole.index(b"trit.crc32c") + len(b"trit.crc32c"))
        for copy in range(COPIES):
            copied = damaged(whole, self.generator, copy)
            while len(copied) == len(whole) and any(copied[at] != whole[at] for at in entry):
                copied = damaged(whole, self.generator, copy)
            path.write_bytes(copied)
            with self.subTest(copy):
                self.fails("info", path, "--codes", says="model.safetensors")
                self.fails("eval", path, "--dataset", "drawn", "--limit", 1, "--predictions", output,
                           says="model.safetensors")
                self.assertFalse(output.exists())

    def test_copies_of_a_model_without_a_checksum(self) -> None:
        # What no rule of the format forbids passes (another float); nothing crashes.
        path = self.root / "model.safetensors"
        whole = image_model(path, with_checksum=False).read_bytes()
        for copy in range(COPIES):
            path.write_bytes(damaged(whole, self.generator, copy))
            result = self.trit("info", path, "--codes")
            self.assertIn(result.returncode, (0, 1))
            self.assertEqual(result.returncode == 0, result.stderr == "")
            if copy % 4 >= 2:
                self.assertEqual(result.returncode, 1)

    def test_copies_of_an_input(self) -> None:
        model, output = image_model(self.root / "model.safetensors"), self.root / "y.safetensors"
        path = self.root / "x.safetensors"
        whole = write_safetensors(path, {"x": ("F32", [1, 3, 32, 32], f32([0.5] * 3072))}).read_bytes()
        header = len(whole) - 4 * 3072
        for copy in range(COPIES):
            path.write_bytes(damaged(whole, self.generator, copy, last=header))
            with self.subTest(copy):
                self.fails("run", model, "--input", path, "--output", output, says="x.safetensors")
                self.assertFalse(output.exists())

    def test_copies_of_a_float_file(self) -> None:
        path, output = self.root / "in.safetensors", self.root / "out.safetensors"
        tensors = {"w.weight": ("F32", [4, 8], f32([0.5] * 32)), "b": ("U8", [3], bytes(3))}
        metadata = stored_form(chain([8], [{"op": "linear", "name": "w"}]))
        whole = write_safetensors(path, tensors, metadata).read_bytes()
        for copy in range(COPIES):
            path.write_bytes(damaged(whole, self.generator, copy))
            result = self.trit("pack", path, output)
            self.assertIn(result.returncode, (0, 1), result.stderr)
            self.assertEqual(output.exists(), result.returncode == 0)
            output.unlink(missing_ok=True)

    def test_the_checksum_is_the_documented_one(self) -> None:
        path = self.root / "out.safetensors"
        tensors = {"b.weight": ("F32", [1, 4], f32([1, 0, 0, -1])), "a": ("U8", [], b"\x07")}
        write_safetensors(path, tensors)
        self.succeeds("pack", path, path)
        found, metadata = read_safetensors(path)
        self.assertEqual(metadata["trit.crc32c"], checksum(found, metadata))
        write_safetensors(path, found, {**metadata, "trit.crc32c": "00000000"})
        self.fails("info", path, says=("corrupt", "00000000", metadata["trit.crc32c"]))


class DiskTest(CommandTest):
    """A limit on the file size simulates a full disk: the write fails, here with EFBIG."""

    def limited(self, *arguments) -> str:
        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return self.fails(*arguments, preexec_fn=limit, restore_signals=False)

    def test_outputs_stay_as_they_were(self) -> None:
        model = image_model(self.root / "model.safetensors")
        x = write_safetensors(self.root / "x.safetensors", {"x": ("F32", [200, 3, 32, 32], f32([0.5]) * 200 * 3072)})
        floats = write_safetensors(self.root / "w.safetensors", {"w.weight": ("F32", [64, 1024], f32([0.5]) * 65536)})
        output = self.root / "output"
        output.write_text("as it was")
        before = sorted(self.root.iterdir())
        for arguments in (("run", model, "--input", x, "--output", output), ("pack", floats, output),
                          ("pack", floats, floats)):
            self.assertIn(str(arguments[-1]), self.limited(*arguments))
            self.assertEqual(output.read_text(), "as it was")
            self.assertEqual(sorted(self.root.iterdir()), before)
        self.fails("eval", model, "--limit", 1, "--predictions", self.root / "no" / "p", says=str(self.root / "no"))
        self.fails("eval", model, "--limit", 1, "--predictions", self.root, says=str(self.root))


class SignalTest(CommandTest):
    def test_ctrl_c(self) -> None:
        # 61 million weights' products an image on the scalar backend, one image a time: minutes of work.
        # An interrupt waits for the end of a batch, which takes two minutes under the sanitizers: fewer weights there.
        hidden = 1_000 if "TRIT_SANITIZED" in os.environ else 20_000
        codes = random.Random(1).randbytes(1024).translate(bytes((b & 0x55) for b in range(256)))  # 0 and +1
        tensors = {"a.weight": ("U8", [hidden, 768], (codes * (hidden * 768 // 1024 + 1))[:hidden * 768]),
                   "a.weight_scale": ("F32", [1], f32([1])), "b.weight_scale": ("F32", [1], f32([1])),
                   "b.weight": ("U8", [10, hidden // 4], bytes(10 * hidden // 4))}
        graph = chain([3, 32, 32], [{"op": "flatten"}, {"op": "bit_linear", "name": "a", "norm": "none"},
                                    {"op": "bit_linear", "name": "b", "norm": "none"}])
        model = write_safetensors(self.root / "model.safetensors", tensors, stored_form(graph))
        x = write_safetensors(self.root / "x.safetensors", {"x": ("F32", [1000, 3, 32, 32], f32([0.5]) * 3072000)})
        output = self.root / "output"
        slow = ["--backend", "scalar", "--threads", "1"]
        for number, call in ((signal.SIGINT, ["eval", model, "--dataset", "drawn", "--batch", "1", "--json", *slow,
                                              "--predictions", output]),
                             (signal.SIGTERM, ["run", model, "--input", x, "--output", output, "--json", *slow]),
                             (signal.SIGHUP, ["run", model, "--input", x, "--output", output, "--json", *slow]),
                             (signal.SIGINT, ["bench", "--shapes", "8192x8192", "--json", *slow])):
            with self.subTest(call[0]):
                process = subprocess.Popen([TRIT, *map(str, call)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                           text=True)
                time.sleep(2)
                self.assertIsNone(process.poll(), "ended before the signal came")
                process.send_signal(number)
                out, err = process.communicate(timeout=120)
                self.assertEqual((process.returncode, out), (130, ""), err)
                self.assertFalse(output.exists())
        # Under nohup the end of the terminal ends nothing.
        process = subprocess.Popen([TRIT, "run", model, "--input", x, "--output", output, *slow], stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        time.sleep(1)
        process.send_signal(signal.SIGHUP)
        time.sleep(1)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130)


if __name__ == "__main__":
    unittest.main()
