# SPDX-License-Identifier: MIT
"""trit: help, exit codes, backends, and `trit info`."""
import json
import os
import random
import subprocess
import unittest

from trit_files import (DRAWN, CommandTest, f32, image_model, pack_codes, stored_form, chain, ternary,
                        write_safetensors)

COMMANDS = ("info", "eval", "run", "pack", "convert", "diff", "bench")
NO_NUMBER = ("nan", "-nan", "inf", "-inf", "-1", "1e999", "", " ", "1x", "x", "0x10", "1,5", "99999999999999999999")


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

    def test_numbers_out_of_range(self) -> None:
        model = image_model(self.root / "model.safetensors")
        run = ("run", model, "--input", "x", "--output", "y")
        counts = (("eval", model, "--limit"), ("eval", model, "--batch"), ("eval", model, "--threads"),
                  (*run, "--threads"), ("bench", "--threads"), ("bench", "--tokens"))
        for option in (*counts, ("diff", model, model, "--tolerance"),
                       ("convert", model, self.root / "out", "--to", "hf", "--shard-size")):
            for text in NO_NUMBER:
                with self.subTest(option=option[0] + option[-1], text=text):
                    # bench --tokens takes a list.
                    self.fails(*option[:-1], f"{option[-1]}={text.replace(',', ';')}", code=2, says=option[-1])
        for option in counts:
            for text in ("1.5", "010", "+1", "1e3"):
                with self.subTest(option=option[0] + option[-1], text=text):
                    self.fails(*option[:-1], f"{option[-1]}={text}", code=2, says=option[-1])
        for text in ("0", "5XB", "5 000", "99999999999GB", "1.5GB"):
            self.fails("convert", model, self.root / "out", "--to", "hf", "--shard-size", text, code=2, says="--shard-size")
        self.fails("diff", model, model, "--tolerance", "1.01", code=2, says="wanted a number from 0 to 1")
        self.fails("eval", model, "--threads", "1025", code=2, says="wanted a whole number from 0 to 1024")
        self.assertIn("0 to 1024", self.succeeds("eval", "--help").stdout)
        for text in ("0", "1", "1e-3", ".5"):
            self.succeeds("diff", model, model, "--tolerance", text)
        self.assertFalse((self.root / "out").exists())

    def test_threads_0_are_all(self) -> None:
        model = image_model(self.root / "model.safetensors")
        default, zero = self.json("eval", model, "--limit", 1), self.json("eval", model, "--limit", 1, "--threads", 0)
        self.assertEqual(zero["threads"], default["threads"])
        self.assertEqual(zero["threads"], len(os.sched_getaffinity(0)))

    def test_a_dash_is_no_path(self) -> None:
        model = image_model(self.root / "model.safetensors")
        for arguments in (("info", "{}"), ("eval", "{}"), ("eval", model, "--data", "{}"),
                          ("eval", model, "--predictions", "{}"), ("run", "{}", "--input", model, "--output", "y"),
                          ("run", model, "--input", "{}", "--output", "y"), ("run", model, "--input", "x", "--output", "{}"),
                          ("pack", "{}", "y"), ("pack", model, "{}"), ("convert", "{}", "y", "--to", "trit"),
                          ("convert", model, "{}", "--to", "trit"), ("diff", "{}", model), ("diff", model, "{}")):
            for path in ("-", ""):
                with self.subTest(arguments=arguments, path=path):
                    self.fails(*(path if argument == "{}" else argument for argument in arguments), code=2,
                               says=f"'{path}'", cwd=self.root)
        self.assertEqual([path.name for path in self.root.iterdir()], ["model.safetensors"])

    def test_files_of_other_projects_do_not_run(self) -> None:
        own = image_model(self.root / "model.safetensors")
        tensors = {key: value for key, value in stored_form({}).items() if key != "trit.model"}
        matrix = write_safetensors(self.root / "matrix", {"w.weight": ("U8", [4, 64], bytes(256)),
                                                          "w.weight_scale": ("F32", [1], f32([1]))}, tensors)
        self.succeeds("convert", matrix, self.root / "m.gguf", "--to", "gguf")
        x = write_safetensors(self.root / "x", {"x": ("F32", [1, 4], f32([0] * 4))})
        for path, name in ((self.root / "m.gguf", "GGUF"), (self.root, "folder")):
            self.fails("run", path, "--input", x, "--output", self.root / "y", says=(str(path), name))
            self.fails("eval", path, says=(str(path), name))
        self.assertFalse((self.root / "y").exists())
        self.succeeds("info", own)

    def test_output_is_checked_before_the_work(self) -> None:
        """The input is missing as well: the message shows which was checked first."""
        (self.root / "folder").mkdir()
        model = image_model(self.root / "model.safetensors")
        for output in (self.root / "no" / "file", self.root / "folder"):
            self.fails("eval", self.root / "missing", "--predictions", output, says=str(output))
            self.fails("run", self.root / "missing", "--input", "x", "--output", output, says=str(output))
        # Converted from a large sparse file; reading it would take seconds.
        self.fails("convert", model, self.root / "no" / "file", "--to", "trit", says=str(self.root / "no"))
        self.fails("convert", model, "/dev/null", "--to", "trit", says="/dev/null")
        self.assertEqual({path.name for path in self.root.iterdir()}, {"folder", "model.safetensors"})

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
        grouped = self.json("bench", "--shapes", "64x64", "--tokens", 1, "--threads", 1, "--backend", "scalar",
                            "--group", 32)["results"]
        self.assertEqual([row.get("group") for row in grouped], [None, 32])
        self.fails("bench", "--group", 48, says="groups of 48 inputs, wanted a multiple of 32")
        self.fails("bench", "--group", 16, code=2)
        self.fails("bench", "--threads", -1, code=2)
        self.fails("bench", "--tune", "--backend", "scalar", says=("--tune", "backend cuda"))
        self.fails("bench", "--tune", "--backend", "cuda", "--group", 64, says="--group: wanted no --tune")

    def test_standard_output_that_takes_nothing(self) -> None:
        model = image_model(self.root / "model.safetensors")
        floats = write_safetensors(self.root / "floats", {"w.weight": ("F32", [1, 4], f32([1.0] * 4))})
        reader, broken = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, broken)
        with open("/dev/full", "w") as full:
            for arguments in (("info", model), ("info", model, "--json"), ("eval", model, "--limit", 1, "--json"),
                              ("diff", model, model), ("diff", model, model, "--json"), ("--help",), ("--version",),
                              ("info", "--help"), ("pack", floats, self.root / "out", "--json"),
                              ("convert", model, self.root / "out", "--to", "trit", "--json"),
                              ("bench", "--shapes", "4x4", "--tokens", "1", "--threads", "1", "--backend", "scalar")):
                code = 2 if arguments[0] == "diff" else 1  # 1: different
                for number, options in enumerate(({"stdout": full}, {"stdout": broken},
                                                  {"stdout": None, "preexec_fn": lambda: os.close(1)})):
                    with self.subTest(arguments=arguments, number=number):
                        result = self.trit(*arguments, stderr=subprocess.PIPE, **options)
                        self.assertEqual(result.returncode, code, result.stderr)
                        self.assertIn("standard output", result.stderr)

    def test_messages_that_cannot_be_written(self) -> None:
        model = image_model(self.root / "model.safetensors")
        floats = write_safetensors(self.root / "floats", {"w.weight": ("F32", [1, 4], f32([1.0] * 4))})
        x = write_safetensors(self.root / "x", {"x": ("F32", [1, 3, 32, 32], f32([0.5] * 3072))})
        reader, broken = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, broken)
        out = self.root / "out"
        with open("/dev/full", "w") as full:
            for arguments, code in ((("pack", floats, out), 0), (("convert", model, out, "--to", "trit"), 0),
                                    (("run", model, "--input", x, "--output", out), 0),
                                    (("eval", model, "--limit", 1, "--predictions", out), 0), (("info", model), 0),
                                    (("diff", model, model), 0), (("diff", model, floats), 1),
                                    (("diff", model, self.root / "missing"), 2), (("pack", self.root / "missing", out), 1),
                                    (("pack", floats), 2), (("--version",), 0)):
                self.trit(*arguments)
                wanted = out.read_bytes() if out.exists() else b""
                for number, options in enumerate(({"stderr": full}, {"stderr": broken}, {"preexec_fn": lambda: os.close(2)},
                                                  {"preexec_fn": lambda: (os.close(0), os.close(2))})):
                    out.unlink(missing_ok=True)
                    with self.subTest(arguments=arguments, number=number):
                        result = self.trit(*arguments, stdout=subprocess.PIPE, **options)
                        self.assertEqual(result.returncode, code)
                        # No message has found its way into the output, whose descriptor would have been 2.
                        self.assertEqual(out.read_bytes() if out.exists() else b"", wanted)
                out.unlink(missing_ok=True)
        self.assertEqual(sorted(path.name for path in self.root.iterdir()), ["floats", "model.safetensors", "x"])

    def test_all_descriptors_closed(self) -> None:
        floats = write_safetensors(self.root / "floats", {"w.weight": ("F32", [1, 4], f32([1.0] * 4))})
        self.succeeds("pack", floats, self.root / "wanted")
        result = self.trit("pack", floats, self.root / "out", stdout=None,
                           preexec_fn=lambda: [os.close(number) for number in range(3)])
        self.assertEqual(result.returncode, 0)
        self.assertEqual((self.root / "out").read_bytes(), (self.root / "wanted").read_bytes())


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
        self.fails("info", path, says=("w.safetensors", "row 0, column 0: the bits are not a ternary code"))

    def test_a_float_file_with_a_network(self) -> None:
        tensors = {"fc.weight": ("F32", [2, 4], f32([1.0] * 8)), "fc.bias": ("F32", [2], f32([0.0] * 2))}
        graph = json.dumps(chain([4], [{"op": "linear", "name": "fc"}]))
        plain = self.json("info", write_safetensors(self.root / "plain", tensors))
        path = write_safetensors(self.root / "floats", tensors, {"trit.model": graph})
        found = self.json("info", path)
        self.assertEqual(found["layers"], plain["layers"])
        self.assertIn("trit pack", self.succeeds("info", path).stdout)
        self.succeeds("pack", path, self.root / "packed")
        self.assertEqual(self.json("info", self.root / "packed")["output"]["shape"], [2])

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
