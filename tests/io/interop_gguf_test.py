# SPDX-License-Identifier: MIT
"""GGUF files of the trit command read by the package gguf, and its files read by the command."""

import unittest

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

from interop_files import Folder, pack_rows, save_own, trit


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


if __name__ == "__main__":
    unittest.main()
