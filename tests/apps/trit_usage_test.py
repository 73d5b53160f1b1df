# SPDX-License-Identifier: MIT
"""trit: help, exit codes, backends, and `trit info`."""
import json
import random
import unittest

from trit_files import (DRAWN, CommandTest, f32, image_model, pack_codes, stored_form, chain, ternary,
                        write_safetensors)

COMMANDS = ("info", "eval", "run", "pack", "bench")


class UsageTest(CommandTest):
    def test_help(self) -> None:
        text = self.succeeds("--help").stdout
        for command in COMMANDS:
            self.assertIn(command, text)
            self.assertIn("Example: trit " + command, self.succeeds(command, "--help").stdout)
        self.assertRegex(self.succeeds("--version").stdout, r"^trit \d+\.\d+\.\d+\n$")

    def test_wrong_usage_is_2(self) -> None:
        for arguments in ((), ("nothing",), ("info",), ("eval",), ("run", "m"), ("run", "m", "--input", "x"),
                          ("pack", "in"), ("info", "m", "--nonsense"), ("eval", "m", "--batch", "0"),
                          ("eval", "m", "--threads", "none"), ("eval", "m", "--limit", "-3"),
                          ("eval", "m", "--dataset", "imagenet"), ("pack", "a", "b", "--scale", "column"),
                          ("pack", "a", "b", "--filter", "("), ("bench", "--shapes", "12"),
                          ("bench", "--shapes", "0x4"), ("bench", "--shapes", "4x4x4"), ("bench", "--tokens", "0")):
            with self.subTest(arguments):
                self.fails(*arguments, code=2)

    def test_backends(self) -> None:
        model = image_model(self.root / "model.safetensors")
        self.fails("eval", model, "--backend", "sse", code=2, says=("'sse'", "this machine has: auto, scalar"))
        # Whether or not this build has CUDA, and this machine a GPU.
        hidden = {"CUDA_VISIBLE_DEVICES": ""}
        for command in (("eval", model), ("info", model), ("run", model, "--input", "x", "--output", "y")):
            error = self.fails(*command, "--backend", "cuda", environment=hidden, says=("'cuda'", "this machine has: scalar"))
            self.assertRegex(error, "this build has no CUDA .*TRIT_CUDA=ON|no NVIDIA driver|shows no GPU|driver is for CUDA")
        self.fails("eval", model, environment={"TRIT_BACKEND": "sse"}, says=("TRIT_BACKEND", "sse"))
        self.fails("eval", model, environment={"TRIT_BACKEND": "cuda", **hidden}, says=("TRIT_BACKEND", "this machine has"))
        chosen = self.json("eval", model, "--limit", 1, environment={"TRIT_BACKEND": "scalar"})
        self.assertEqual(chosen["backend"], "scalar")
        self.assertNotIn("loaded", self.json("info", model))
        loaded = self.json("info", model, "--backend", "auto")
        best = self.json("eval", model, "--limit", 1)["backend"]
        if best != "scalar":
            self.assertEqual((loaded["loaded"]["backend"], loaded["loaded"]["layout"]), (best, "two_bit"))  # it stays in cache

    def test_bench(self) -> None:
        result = self.json("bench", "--shapes", "64x64,5x7", "--tokens", "1,3", "--threads", 1, "--backend", "scalar")
        self.assertEqual(result["backend"], "scalar")
        shapes = {(row["out_features"], row["in_features"], row["tokens"]) for row in result["results"]}
        self.assertEqual(shapes, {(64, 64, 1), (64, 64, 3), (5, 7, 1), (5, 7, 3)})
        self.assertTrue(all(row["chosen"] for row in result["results"]))  # scalar has one layout
        every = self.json("bench", "--shapes", "64x64", "--tokens", 1, "--threads", 0, "--backend", "scalar")
        self.assertEqual({row["threads"] for row in every["results"]}, {every["machine"]["cores"]})
        table = self.succeeds("bench", "--shapes", "64x64", "--tokens", 1, "--threads", 1).stdout
        for column in ("layout ", "product us ", "layer us ", "GB/s ", "GOP/s ", "share "):
            self.assertIn("\n" + column, table)  # the legend
        self.assertIn("TRIT_LAYOUT", self.succeeds("bench", "--help").stdout)
        self.fails("bench", "--threads", -1, code=2)
        self.fails("bench", "--tune", "--backend", "scalar", says=("--tune", "backend cuda"))

    def test_standard_output_that_takes_nothing(self) -> None:
        model = image_model(self.root / "model.safetensors")
        with open("/dev/full", "w") as full:
            for arguments in (("info", model), ("info", model, "--json"), ("eval", model, "--limit", 1, "--json")):
                result = self.trit(*arguments, stdout=full)
                self.assertEqual(result.returncode, 1, arguments)


class InfoTest(CommandTest):
    def test_model(self) -> None:
        model = image_model(self.root / "model.safetensors")
        info = self.json("info", model, "--codes")
        self.assertEqual(info["file_bytes"], model.stat().st_size)
        self.assertEqual(info["format"], {"version": "1", "layout": "rows-2bit", "scale": "multiply"})
        self.assertEqual((info["input"]["shape"], info["input"]["classes"]), ([3, 32, 32], DRAWN))
        self.assertEqual(info["output"]["shape"], [10])
        layers = {layer["name"]: layer for layer in info["layers"]}
        self.assertEqual([(layer["type"], layer["shape"]) for layer in layers.values()],
                         [("conv2d", [4, 3, 3, 3]), ("bit_linear", [16, 256]), ("bit_linear", [10, 16])])
        fc1 = layers["fc1"]
        self.assertEqual(fc1["scale"], [0.0625])
        self.assertEqual(fc1["stored_bytes"], 16 * 64 + 4 + 4 * 256)
        self.assertEqual(fc1["float_bytes"], 4 * (16 * 256 + 256))
        self.assertAlmostEqual(fc1["bits_per_weight"], 2 + 32 / 4096)
        generator = random.Random(7)  # as image_model draws fc1 first
        weights = [generator.randint(-1, 1) for _ in range(16 * 256)]
        self.assertEqual(fc1["codes"], {"minus_one": weights.count(-1), "zero": weights.count(0),
                                        "plus_one": weights.count(1)})
        self.assertEqual(layers["conv1"]["bits_per_weight"], 32)
        self.assertEqual(len(info["tensors"]), 8)

    def test_table(self) -> None:
        model = image_model(self.root / "model.safetensors")
        plain = self.succeeds("info", model).stdout
        for text in ("fc1", "bit_linear", "[16, 256]", "2,052", "0.0625", "rows-2bit", "disc, ring"):
            self.assertIn(text, plain)
        self.assertNotIn("-1 / 0 / +1", plain)
        self.assertIn("-1 / 0 / +1", self.succeeds("info", model, "--codes").stdout)

    def test_packed_matrices_without_a_graph(self) -> None:
        row_scale = {"w": ("U8", [2, 2], pack_codes([[1, 0, -1, 0, 0, 1], [0, 0, 1, 1, 1, 1]])),
                     "w_scale": ("F32", [2], f32([0.5, 2]))}
        metadata = {key: value for key, value in stored_form({}).items() if key != "trit.model"}
        path = write_safetensors(self.root / "w.safetensors", row_scale, {**metadata, "trit.in_features.w": "6"})
        layer, = self.json("info", path, "--codes")["layers"]
        self.assertEqual((layer["type"], layer["shape"], layer["scale"]), ("ternary", [2, 6], [0.5, 2]))
        self.assertEqual(layer["codes"], {"minus_one": 1, "zero": 5, "plus_one": 6})
        for wrong in ("4", "9", "-6", "six", ""):
            write_safetensors(path, row_scale, {**metadata, "trit.in_features.w": wrong})
            self.fails("info", path, says="trit.in_features.w")
        row_scale["w"] = ("U8", [2, 2], b"\x02\x00\x00\x00")
        write_safetensors(path, row_scale, metadata)
        self.fails("info", path, says=("w.safetensors", "code 2"))

    def test_any_safetensors_file(self) -> None:
        tensors = {"a": ("F16", [3], bytes(6)), "b\x1b[31m": ("I64", [], bytes(8)), "empty": ("F32", [0, 4], b"")}
        path = write_safetensors(self.root / "plain.safetensors", tensors)
        info = self.json("info", path)
        self.assertEqual({row["name"]: row["shape"] for row in info["layers"]}, {"a": [3], "b\x1b[31m": [], "empty": [0, 4]})
        self.assertNotIn("\x1b", self.succeeds("info", path).stdout)  # nothing of the file steers the terminal

    def test_what_is_no_model(self) -> None:
        self.fails("info", self.root / "missing", says="missing")
        self.fails("info", self.root, says=str(self.root))
        (self.root / "text").write_text("hello")
        self.fails("info", self.root / "text", says="text")
        graph = chain([4], [{"op": "attention", "name": "a"}])
        tensors = {f"a.{k}": v for k, v in ternary(random.Random(1), 2, 4, 1.0).items()}
        path = write_safetensors(self.root / "op.safetensors", tensors, stored_form(graph))
        self.fails("info", path, says="attention")
        self.assertEqual(json.loads(self.succeeds("info", image_model(path), "--json").stdout)["output"]["shape"], [10])


if __name__ == "__main__":
    unittest.main()
