# SPDX-License-Identifier: MIT
"""GGUF files of the trit command read by the package gguf, and its files read by the command."""

import json
import unittest

import gguf
import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

from interop_files import Folder, pack_rows, save_own, trit


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Gguf(Folder):
    def test_values(self):
        """gguf's own dequantisation gives t * float16(scale), per tensor and per row."""
        a = self.ternary(12, 512)
        b = self.ternary(7, 256)
        rows = self.random.uniform(1e-3, 2, 7).astype(numpy.float32)
        norm = self.random.standard_normal(512).astype(numpy.float32)
        save_own(self.root / "own", {"a.weight": (a, 0.0371), "b.weight": (b, rows)},
                 {"a.norm.weight": norm, "half": norm.astype(numpy.float16)})
        wanted = {"a.weight": a * numpy.float32(numpy.float16(0.0371)),
                  "b.weight": b * rows.astype(numpy.float16).astype(numpy.float32)[:, None]}
        for kind in ("tq1_0", "tq2_0"):
            path = self.root / kind
            trit("convert", self.root / "own", path, "--to", "gguf", "--type", kind)
            reader = GGUFReader(path)
            self.assertEqual(reader.fields["general.architecture"].contents(), "trit")
            tensors = {tensor.name: tensor for tensor in reader.tensors}
            self.assertEqual(set(tensors), {"a.weight", "b.weight", "a.norm.weight", "half"})
            for name, values in wanted.items():
                self.assertEqual(tensors[name].tensor_type.name, kind.upper())
                numpy.testing.assert_array_equal(dequantize(tensors[name].data, tensors[name].tensor_type), values)
            numpy.testing.assert_array_equal(tensors["a.norm.weight"].data, norm)
            trit("diff", self.root / "own", path, "--tolerance", "0.0005")
            trit("diff", self.root / "own", path, expect=1)

    def test_we_read_what_gguf_writes(self):
        t = self.ternary(6, 768)
        t[:, ::256] = 1  # no block without a weight: its absmax is the scale
        for kind in (GGMLQuantizationType.TQ1_0, GGMLQuantizationType.TQ2_0):
            path = self.root / f"{kind.name}.gguf"
            writer = GGUFWriter(path, "bitnet")
            writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
            data = quantize(t.astype(numpy.float32) * numpy.float32(0.25), kind)
            writer.add_tensor("blk.0.attn_q.weight", data, raw_dtype=kind)
            writer.add_tensor("output_norm.weight", numpy.ones(768, numpy.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            trit("convert", path, self.root / "own", "--to", "trit")
            tensors = load_file(self.root / "own")
            numpy.testing.assert_array_equal(tensors["blk.0.attn_q.weight"], pack_rows(t))
            numpy.testing.assert_array_equal(tensors["blk.0.attn_q.weight_scale"], [0.25])

    def test_types(self):
        """Every type that gguf knows: its name and its size."""
        path, sizes = self.root / "x", {}
        writer = GGUFWriter(path, "llama")
        for kind, (weights, size) in gguf.GGML_QUANT_SIZES.items():
            if kind == GGMLQuantizationType.Q8_1:
                continue  # two float16 and 32 bytes since 2024; gguf 0.19 still says 40, with two float32
            if weights > 1:
                data = self.random.integers(0, 256, (3, 2 * size)).astype(numpy.uint8)
                writer.add_tensor(f"t.{kind.name}", data, raw_dtype=kind)
                sizes[f"t.{kind.name}"] = (kind.name, [3, 2 * weights], 6 * size)
        finish(writer)
        rows = {row["name"]: row for row in json.loads(trit("info", path, "--json"))["layers"]}
        self.assertEqual({name: (row["type"], row["shape"], row["stored_bytes"]) for name, row in rows.items()}, sizes)
        self.assertGreater(len(sizes), 20)
        # The ternary ones have random scales; all others are copied byte for byte.
        (self.root / "map").write_text(json.dumps({r"t\.TQ.*": None}))
        trit("convert", path, self.root / "y", "--to", "gguf", "--map", self.root / "map")
        original = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        copied = {tensor.name: tensor for tensor in GGUFReader(self.root / "y").tensors}
        self.assertEqual(set(copied), {name for name in original if not name.startswith("t.TQ")})
        for name, tensor in copied.items():
            self.assertEqual(tensor.tensor_type, original[name].tensor_type)
            numpy.testing.assert_array_equal(tensor.data, original[name].data)

    def test_ternary_layers_beside_other_types(self):
        """What llama-quantize makes of a model: the matrices ternary, embedding and output in other types, experts."""
        writer = GGUFWriter(self.root / "x", "llama")
        embedding = self.random.integers(0, 256, (64, 144)).astype(numpy.uint8)
        writer.add_tensor("token_embd.weight", embedding, raw_dtype=GGMLQuantizationType.Q4_K)
        experts = self.random.integers(-1, 2, (2, 4, 256)).astype(numpy.float32)
        experts[..., 0] = 1
        experts[1] *= 0.25
        writer.add_tensor("blk.0.ffn_up_exps.weight", quantize(experts, GGMLQuantizationType.TQ2_0),
                          raw_dtype=GGMLQuantizationType.TQ2_0)
        finish(writer)
        trit("info", self.root / "x", "--codes")
        trit("convert", self.root / "x", self.root / "y", "--to", "gguf", "--type", "tq1_0")
        tensors = {tensor.name: tensor for tensor in GGUFReader(self.root / "y").tensors}
        self.assertEqual(tensors["token_embd.weight"].tensor_type, GGMLQuantizationType.Q4_K)
        numpy.testing.assert_array_equal(tensors["token_embd.weight"].data, embedding)
        found = tensors["blk.0.ffn_up_exps.weight"]
        self.assertEqual(found.tensor_type, GGMLQuantizationType.TQ1_0)
        numpy.testing.assert_array_equal(dequantize(found.data, found.tensor_type), experts)

    def test_parts(self):
        """A model that gguf's own writer splits."""
        values = {f"blk.{i}.attn_q.weight": self.ternary(4, 256).astype(numpy.float32) for i in range(5)}
        writer = GGUFWriter(self.root / "m.gguf", "llama", split_max_tensors=2)
        writer.add_block_count(5)
        for name, t in values.items():
            t[:, 0] = 1
            writer.add_tensor(name, quantize(t, GGMLQuantizationType.TQ2_0), raw_dtype=GGMLQuantizationType.TQ2_0)
        finish(writer)
        parts = sorted(self.root.iterdir())
        self.assertEqual([path.name for path in parts], [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)])
        trit("convert", parts[0], self.root / "one", "--to", "gguf", "--type", "tq1_0")
        reader = GGUFReader(self.root / "one")
        self.assertEqual([key for key in reader.fields if key.startswith("split.")], [])
        self.assertEqual(reader.fields["llama.block_count"].contents(), 5)
        self.assertEqual({tensor.name for tensor in reader.tensors}, set(values))
        for tensor in reader.tensors:
            numpy.testing.assert_array_equal(dequantize(tensor.data, tensor.tensor_type), values[tensor.name])
        for path in parts[1:]:
            trit("info", path, expect=1)

    def test_scalars(self):
        writer = GGUFWriter(self.root / "x", "llama")
        writer.add_tensor("a", numpy.array(0.5, numpy.float32))
        writer.add_tensor("b", numpy.arange(3, dtype=numpy.float32))
        finish(writer)
        trit("convert", self.root / "x", self.root / "y", "--to", "gguf")
        tensors = {tensor.name: tensor for tensor in GGUFReader(self.root / "y").tensors}
        self.assertEqual((list(tensors["a"].shape), float(tensors["a"].data.reshape(-1)[0])), ([], 0.5))
        trit("diff", self.root / "x", self.root / "y")


if __name__ == "__main__":
    unittest.main()
