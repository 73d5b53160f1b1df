# SPDX-License-Identifier: MIT
"""trit eval: predictions against plain arithmetic, accuracy, data sets, bad data."""
import os
import pathlib
import random
import struct
import unittest

from trit_files import (CommandTest, chain, f32, image_model, pack_codes, stored_form,
                        write_safetensors)

RECORD, RECORDS = 3073, 10_000
MEAN, STD = [0.25, 0.5, 0.75], [0.5, 0.25, 0.125]


def rounded(value: float) -> float:
    """To float32. A float32 sum, product or quotient computed in double and rounded once more is exact."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def linear_model(path: pathlib.Path, rows: list[list[int]], **about_input) -> pathlib.Path:
    """flatten, then one ternary layer without a norm: exact, so the test can compute it."""
    columns = len(rows[0])
    graph = chain([3, 32, 32] if columns == 3072 else [columns],
                  [{"op": "flatten"}, {"op": "bit_linear", "name": "fc", "norm": "none"}], **about_input)
    return write_safetensors(path, {"fc.weight": ("U8", [len(rows), (columns + 3) // 4], pack_codes(rows)),
                                    "fc.weight_scale": ("F32", [1], f32([0.5]))}, stored_form(graph))


def predict(image: bytes, rows: list[list[int]]) -> int:
    x = [rounded(rounded(rounded(pixel / 255) - MEAN[i // 1024]) / STD[i // 1024]) for i, pixel in enumerate(image)]
    factor = rounded(127 / max(map(abs, x)))
    q = [round(rounded(value * factor)) for value in x]  # Python rounds half to even, too
    sums = [sum(a * t for a, t in zip(q, row) if t) for row in rows]
    return sums.index(max(sums))  # scales are positive and the same for all outputs


class EvalTest(CommandTest):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        generator = random.Random(3)
        cls.rows = [[generator.randint(-1, 1) for _ in range(3072)] for _ in range(10)]
        cls.test_batch = bytearray(generator.randbytes(RECORD * RECORDS))
        for record in range(RECORDS):
            cls.test_batch[record * RECORD] = record % 10

    def setUp(self) -> None:
        super().setUp()
        self.model = linear_model(self.root / "model.safetensors", self.rows, mean=MEAN, std=STD)
        self.data = self.root / "cifar-10-batches-bin"
        self.data.mkdir()
        (self.data / "test_batch.bin").write_bytes(self.test_batch)

    def predictions(self, *options) -> tuple[dict, list[int]]:
        path = self.root / "predictions"
        result = self.json("eval", self.model, "--data", self.root, "--predictions", path, *options)
        return result, [int(line) for line in path.read_text().splitlines()]

    def test_against_plain_arithmetic(self) -> None:
        count = 30
        result, found = self.predictions("--limit", count)
        wanted = [predict(self.test_batch[i * RECORD + 1:(i + 1) * RECORD], self.rows) for i in range(count)]
        self.assertEqual(found, wanted)
        self.assertGreater(len(set(found)), 3)  # a test that says something
        right = sum(p == i % 10 for i, p in enumerate(found))
        self.assertEqual((result["correct"], result["images"]), (right, count))
        self.assertAlmostEqual(result["accuracy"], 100 * right / count)
        self.assertEqual((result["dataset"], result["split"]), ("cifar10", "test"))

    def test_batch_threads_and_backend_change_nothing(self) -> None:
        all_of_it, first = self.predictions()
        self.assertEqual(all_of_it["images"], RECORDS)
        for options in (("--batch", 1, "--limit", 500), ("--batch", 77), ("--threads", 1), ("--threads", 3),
                        ("--backend", "scalar", "--limit", 2000)):
            with self.subTest(options):
                result, found = self.predictions(*options)
                self.assertEqual(found, first[:result["images"]])

    def test_json_says_how_it_was_measured(self) -> None:
        result, _ = self.predictions("--limit", 256, "--threads", 1, "--backend", "scalar")
        self.assertEqual((result["threads"], result["backend"], result["batch"]), (1, "scalar", 128))
        self.assertGreater(result["images_per_second"], result["images_per_second_with_preprocessing"])
        self.assertAlmostEqual(result["images_per_second"] * result["seconds"], 256)
        self.assertEqual(result["image_bytes"], 3072 * RECORDS)
        self.assertGreater(result["peak_resident_bytes"], result["image_bytes"])

    def test_memory(self) -> None:
        if "asan" in os.environ.get("TRIT_COMMAND", "") or "ASAN_OPTIONS" in os.environ:
            self.skipTest("a sanitizer's own memory would be measured")
        result = self.json("eval", image_model(self.root / "m.safetensors"), "--data", self.root, "--dataset", "cifar10")
        self.assertLessEqual(result["peak_resident_bytes"] - result["image_bytes"], 64 << 20)

    def test_which_data_set(self) -> None:
        drawn = self.json("eval", image_model(self.root / "drawn.safetensors"), "--limit", 10)
        self.assertEqual(drawn["dataset"], "drawn")  # by its classes
        forced = self.trit("eval", self.root / "drawn.safetensors", "--dataset", "cifar10", "--data", self.data, "--limit", 10)
        self.assertEqual(forced.returncode, 0, forced.stderr)
        self.assertIn("classes", forced.stderr)  # a warning: those of another data set
        variable = self.json("eval", self.model, "--limit", 10, environment={"TRIT_CIFAR10": str(self.root)})
        self.assertEqual(variable["dataset"], "cifar10")
        cache = self.root / "cache"
        (cache / "trit").mkdir(parents=True)
        (cache / "trit" / "cifar10").symlink_to(self.root)
        self.json("eval", self.model, "--limit", 10, environment={"XDG_CACHE_HOME": str(cache)})
        self.fails("eval", self.model, environment={"XDG_CACHE_HOME": str(self.root)}, says="cifar10")

    def test_outputs_that_are_not_finite(self) -> None:
        rows = [[1] * 3072 for _ in range(10)]
        model = linear_model(self.root / "nan.safetensors", rows, mean=[0, 0, 0], std=[1e-40] * 3)  # x = Inf, so y = NaN
        result = self.trit("eval", model, "--data", self.root, "--limit", 3, "--predictions", self.root / "p")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("3 images have a NaN", result.stderr)
        self.assertEqual((self.root / "p").read_text(), "-1\n" * 3)

    def test_a_nan_beside_other_outputs_is_no_class(self) -> None:
        weight = [1.0] * 3072 * 10
        weight[3072 * 4:3072 * 5] = [0.0] * 3072  # infinity * 0 = NaN for class 4 alone
        graph = chain([3, 32, 32], [{"op": "flatten"}, {"op": "linear", "name": "fc"}], mean=[0, 0, 0], std=[1e-40, 1, 1])
        model = write_safetensors(self.root / "nan.safetensors", {"fc.weight": ("F32", [10, 3072], f32(weight))},
                                  stored_form(graph))
        result = self.json("eval", model, "--data", self.root, "--limit", 20, "--predictions", self.root / "p")
        self.assertEqual((result["not_finite"], result["correct"]), (20, 0))
        self.assertEqual((self.root / "p").read_text(), "-1\n" * 20)

    def test_models_that_do_not_fit(self) -> None:
        narrow = linear_model(self.root / "narrow.safetensors", [[1] * 100] * 10)
        self.fails("eval", narrow, "--dataset", "drawn", says=("[100]", "[3, 32, 32]"))
        short = linear_model(self.root / "short.safetensors", [[1] * 3072] * 9)
        self.fails("eval", short, "--dataset", "drawn", says=("[9]", "[10]"))
        plain = write_safetensors(self.root / "plain.safetensors", {"a": ("F32", [1], f32([1]))})
        self.fails("eval", plain, "--dataset", "drawn", says="plain.safetensors")
        self.fails("eval", self.root / "none", "--dataset", "drawn", says="none")

    def test_bad_data(self) -> None:
        path = self.data / "test_batch.bin"
        output = self.root / "predictions"
        call = ("eval", self.model, "--data", self.root, "--predictions", output)
        os.truncate(path, RECORD * RECORDS - 1)
        self.fails(*call, says=("test_batch.bin", "30729999 bytes, wanted 30730000", "offset 30729999"))
        os.truncate(path, RECORD * RECORDS)
        with path.open("r+b") as file:
            file.seek(1234 * RECORD)
            file.write(b"\x0a")
        self.fails(*call, says=("test_batch.bin", "label 10", f"offset {1234 * RECORD}"))
        path.unlink()
        self.fails(*call, says="test_batch.bin")
        path.mkdir()
        self.fails(*call, says="not a regular file")
        self.fails("eval", self.model, "--data", self.root / "nowhere", says=str(self.root / "nowhere"))
        self.assertFalse(output.exists())
        fashion = ("eval", self.model, "--dataset", "fashion-mnist", "--data")
        self.fails(*fashion, self.root, says="t10k-images-idx3-ubyte")
        (self.root / "t10k-images-idx3-ubyte.gz").write_bytes(b"")
        self.fails(*fashion, self.root, says="gunzip")

    def test_200_corrupted_copies_of_a_data_file(self) -> None:
        seed = int(os.environ.get("TRIT_TEST_SEED", random.randrange(1 << 32)))
        print(f"TRIT_TEST_SEED={seed}")
        generator = random.Random(seed)
        path, output = self.data / "test_batch.bin", self.root / "predictions"
        for copy in range(200):
            kind = copy % 3
            record = generator.randrange(RECORDS)
            with path.open("r+b") as file:
                if kind == 0:  # one of the label's upper bits: a pixel's would be another pixel
                    file.seek(record * RECORD)
                    file.write(bytes([self.test_batch[record * RECORD] ^ (1 << generator.randrange(4, 8))]))
                elif kind == 1:
                    file.truncate(generator.randrange(RECORD * RECORDS))
                else:
                    file.seek(0, os.SEEK_END)
                    file.write(bytes(generator.randrange(1, 5000)))
            self.fails("eval", self.model, "--data", self.root, "--predictions", output, says=("test_batch.bin", "offset"))
            self.assertFalse(output.exists())
            with path.open("r+b") as file:
                if kind == 0:
                    file.seek(record * RECORD)
                    file.write(self.test_batch[record * RECORD:record * RECORD + 1])
                elif kind == 1:
                    size = file.seek(0, os.SEEK_END)
                    file.write(self.test_batch[size:])
                else:
                    file.truncate(RECORD * RECORDS)
        self.assertEqual(self.json("eval", self.model, "--data", self.root, "--limit", 10)["images"], 10)


if __name__ == "__main__":
    unittest.main()
