# SPDX-License-Identifier: MIT
"""Checks docs/format.md: its example file to the byte, its golden vector, its Python."""
import json
import pathlib
import re
import struct
import unittest

from trit_files import CommandTest, chain, f32, lcg, pack_codes, read_safetensors, stored_form, write_safetensors

DOCUMENT = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "format.md").read_text()
EXAMPLE = [[1, 0, -1, 0, 0, 1], [-1, -1, 0, 1, 1, 0]]


class FormatDocumentTest(CommandTest):
    def example(self) -> pathlib.Path:
        path = write_safetensors(self.root / "example.safetensors",
                                 {"fc.weight": ("F32", [2, 6], f32([t / 2 for row in EXAMPLE for t in row]))})
        self.succeeds("pack", path, path)
        return path

    def test_the_example_file(self) -> None:
        data = self.example().read_bytes()
        self.assertIn(f"as `trit pack` writes it, {len(data)} bytes", DOCUMENT)
        header = data[8:8 + struct.unpack("<Q", data[:8])[0]].rstrip(b" ").decode()
        self.assertIn(header, re.sub(r"\n +", "", DOCUMENT))
        for offset, length in ((0, 8), (288, 4), (292, 4)):
            self.assertRegex(DOCUMENT, rf"\n +{offset}  {data[offset:offset + length].hex(' ')} ")

    def test_the_golden_vector(self) -> None:
        matrix = [(v % 3) - 1 for v in lcg(256)]
        codes = pack_codes([matrix[i:i + 16] for i in range(0, 256, 16)]).hex()
        self.assertIn(codes, re.sub(r"\n +", "", DOCUMENT))
        self.assertIn(" ".join(map(str, matrix[:16])), DOCUMENT)

    def test_the_graph_loads(self) -> None:
        graph = json.loads(DOCUMENT.split("```json\n")[1].split("```")[0])
        tensors = {"conv1.weight": ("F32", [2, 3, 3, 3], f32([0.1] * 54)), "fc1.weight_scale": ("F32", [1], f32([1])),
                   "fc1.weight": ("U8", [10, 128], bytes(1280))}
        path = write_safetensors(self.root / "m.safetensors", tensors, stored_form(graph))
        self.assertEqual(self.json("info", path)["output"]["shape"], [10])

    def test_the_table_of_ops(self) -> None:
        # Each op with exactly its keys loads (a small chain for each).
        rows = DOCUMENT.split("| op | keys")[1].split("\n\n")[0]
        ops = set(re.findall(r"`([a-z_0-9]+)`", "\n".join(row.split("|")[1] for row in rows.splitlines()[2:])))
        nodes = [{"op": "conv2d", "name": "c", "stride": 1, "padding": 0},
                 {"op": "batch_norm", "name": "n", "eps": 1e-5}, {"op": "relu"}, {"op": "gelu", "approximate": "tanh"},
                 {"op": "max_pool2d", "kernel": 2, "stride": 1}, {"op": "avg_pool2d", "kernel": 1, "stride": 1},
                 {"op": "flatten"}, {"op": "linear", "name": "l"},
                 {"op": "bit_linear", "name": "b", "norm": "none", "eps": 1e-5}]
        graph = chain([1, 3, 3], nodes)
        graph["nodes"].append({"op": "add", "inputs": [len(nodes), len(nodes)]})
        look_up = chain([3], [{"op": "embedding", "name": "e", "features": 4}])
        self.assertEqual({node["op"] for node in graph["nodes"] + look_up["nodes"]}, ops)
        tensors = {"c.weight": ("F32", [1, 1, 2, 2], f32([1] * 4)), "n.running_mean": ("F32", [1], f32([0])),
                   "n.running_var": ("F32", [1], f32([1])), "l.weight": ("F32", [2, 1], f32([1, 2])),
                   "b.weight": ("U8", [1, 1], pack_codes([[1, -1]])), "b.weight_scale": ("F32", [1], f32([1]))}
        path = write_safetensors(self.root / "m.safetensors", tensors, stored_form(graph))
        self.assertEqual(self.json("info", path)["output"]["shape"], [1])
        tensors = {"e.weight": ("U8", [2, 1], pack_codes([[1, -1, 0, 1], [0, 0, 1, -1]])),
                   "e.weight_scale": ("F32", [1], f32([1]))}
        path = write_safetensors(self.root / "e.safetensors", tensors, stored_form(look_up))
        self.assertEqual(self.json("info", path)["output"]["shape"], [3, 4])

    def test_the_python(self) -> None:
        try:
            import safetensors.numpy  # noqa: F401  (what the document's lines need; the project's .venv has it)
        except ImportError:
            self.skipTest("the safetensors package is not installed")
        names: dict = {}
        exec(DOCUMENT.split("```python\n")[1].split("```")[0], names)
        t, scale = names["read_ternary"](self.example(), "fc", 6)
        self.assertEqual(t.tolist(), EXAMPLE)
        self.assertEqual(scale.tobytes(), read_safetensors(self.root / "example.safetensors")[0]["fc.weight_scale"][2])


if __name__ == "__main__":
    unittest.main()
