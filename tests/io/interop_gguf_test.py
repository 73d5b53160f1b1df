# SPDX-License-Identifier: MIT
"""Files of the trit command read by transformers and gguf, and theirs read by it.

interop_formats_test.py TRIT_COMMAND. Each part runs where its packages can be imported (transformers 5.23.0 with
accelerate 1.15.0, gguf 0.19.0, torchao 0.18.0) and is skipped, by name, elsewhere.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy
from safetensors.numpy import load_file, save_file

# The layers of transformers are decorated with torch.compile: here they run as written.
os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
TRIT = sys.argv.pop(1) if len(sys.argv) > 1 else os.environ["TRIT_COMMAND"]


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def trit(*arguments, expect: int = 0) -> str:
    done = subprocess.run([TRIT, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != expect:
        raise AssertionError(f"trit {arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def pack_rows(t: numpy.ndarray) -> numpy.ndarray:
    """rows-2bit: two's complement, four columns a byte, low bits first."""
    rows, columns = t.shape
    padded = numpy.zeros((rows, (columns + 3) // 4 * 4), numpy.uint8)
    padded[:, :columns] = t.astype(numpy.int8).view(numpy.uint8) & 3
    fields = padded.reshape(rows, -1, 4)
    return fields[..., 0] | fields[..., 1] << 2 | fields[..., 2] << 4 | fields[..., 3] << 6


def save_own(path: Path, matrices: dict, others: dict, graph: dict | None = None) -> None:
    """Stored form: name -> (t, scale)."""
    tensors = dict(others)
    metadata = {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply"}
    for name, (t, scale) in matrices.items():
        tensors[name] = pack_rows(t)
        tensors[name + "_scale"] = numpy.atleast_1d(numpy.asarray(scale, numpy.float32))
        metadata[f"trit.in_features.{name}"] = str(t.shape[1])
    if graph:
        metadata["trit.model"] = json.dumps(graph)
    save_file(tensors, path, metadata)


class Folder(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.root = Path(self.temporary.name)
        self.random = numpy.random.default_rng(20240610)

    def ternary(self, rows: int, columns: int) -> numpy.ndarray:
        return self.random.integers(-1, 2, (rows, columns)).astype(numpy.int8)


@unittest.skipUnless(has("gguf"), "the package gguf is not installed")
class Gguf(Folder):
    def test_values(self):
        """gguf's own dequantisation gives t * float16(scale), per tensor and per row."""
        from gguf import GGUFReader
        from gguf.quants import dequantize

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
        from gguf import GGMLQuantizationType, GGUFWriter
        from gguf.quants import quantize

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


def small_config(**quantization):
    """Two small Llama layers, so that every projection is a BitNet layer."""
    from transformers import LlamaConfig

    config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = "float32"
    if quantization:
        config.quantization_config = {"quant_method": "bitnet", **quantization}
    return config


@unittest.skipUnless(has("transformers") and has("accelerate"), "transformers and accelerate are not installed")
class Transformers(Folder):
    def own_model(self, use_rms_norm: bool):
        """A random ternary Llama in the stored form; returns its matrices, name -> (t, scale)."""
        import torch
        from transformers import LlamaForCausalLM

        torch.manual_seed(7)
        model = LlamaForCausalLM(small_config())
        matrices, others = {}, {}
        for name, value in model.state_dict().items():
            if name.endswith("proj.weight"):
                matrices[name] = (self.ternary(*value.shape), numpy.float32(self.random.uniform(0.02, 0.2)))
                if use_rms_norm:
                    others[name.replace(".weight", ".norm.weight")] = self.random.uniform(
                        0.5, 1.5, value.shape[1]).astype(numpy.float32)
            else:
                others[name] = value.numpy()
        save_own(self.root / "own", matrices, others)
        small_config().to_json_file(self.root / "config.json")
        return matrices, others

    def load(self, folder: Path):
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def check_layer(self, module, t, scale, norm, generator):
        """The module's output against W = t * scale on the same int8 activations, in float64."""
        import torch

        x = torch.randn(5, t.shape[1], generator=generator)
        with torch.no_grad():
            y = module(x).numpy()
            xn = module.rms_norm(x) if norm is not None else x
        s = 127 / numpy.abs(xn.numpy()).max(axis=1, keepdims=True).clip(1e-5)
        q = numpy.rint(xn.numpy() * s).clip(-128, 127)
        if hasattr(module, "activation_quant"):
            numpy.testing.assert_array_equal(module.activation_quant(xn)[0].numpy(), q)
        wanted = (q.astype(numpy.float64) @ t.T.astype(numpy.float64)) / s.astype(numpy.float64) * float(scale)
        numpy.testing.assert_allclose(y, wanted, rtol=0, atol=1e-6 * numpy.abs(wanted).max())

    def test_it_loads_what_we_write(self):
        import torch

        for use_rms_norm in (False, True):
            matrices, others = self.own_model(use_rms_norm)
            for convention in ("multiply", "divide"):
                for shard in ((), ("--shard-size", "30KB")):
                    folder = self.root / f"{convention}-{use_rms_norm}-{len(shard)}"
                    trit("convert", self.root / "own", folder, "--to", "hf", "--scale-convention", convention,
                         "--config", self.root / "config.json", *shard)
                    self.assertEqual((folder / "model.safetensors.index.json").exists(), bool(shard))
                    model = self.load(folder)
                    generator = torch.Generator().manual_seed(3)
                    for name, (t, scale) in matrices.items():
                        module = model.get_submodule(name.removesuffix(".weight"))
                        self.assertEqual(type(module).__name__,
                                         "AutoBitLinear" if convention == "multiply" else "BitLinear")
                        self.check_layer(module, t, scale, others.get(name.replace(".weight", ".norm.weight")), generator)
                    self.assertEqual(type(model.lm_head).__name__, "Linear")
                    trit("diff", self.root / "own", folder, "--tolerance", "1e-6")

    def test_we_read_what_it_saves(self):
        self.own_model(False)
        for convention in ("multiply", "divide"):
            written = self.root / convention
            trit("convert", self.root / "own", written, "--to", "hf", "--scale-convention", convention,
                 "--config", self.root / "config.json")
            saved = self.root / f"{convention}-saved"
            # In its original format transformers 5.23 cannot save an autobitlinear model (its unpacking has no
            # reverse); otherwise it saves the matrices as floats.
            self.load(written).save_pretrained(saved, max_shard_size="40KB",
                                               save_original_format=convention == "divide")
            self.assertTrue((saved / "model.safetensors.index.json").exists())
            trit("diff", self.root / "own", saved, "--tolerance", "1e-6")
            trit("convert", saved, self.root / f"{convention}-back", "--to", "trit")
            trit("diff", self.root / f"{convention}-back", self.root / "own", "--tolerance", "1e-6")


@unittest.skipUnless(has("torchao") and has("torch"), "the package torchao is not installed")
class Torchao(Folder):
    def test_we_read_its_packing(self):
        import torch
        from torchao.prototype.quantized_training.bitnet import _pack_i2_in_i8

        t = self.ternary(9, 40)
        packed = _pack_i2_in_i8(torch.from_numpy(t)).numpy()
        save_file({"fc.weight.int_data": packed, "fc.weight.scale": numpy.array(0.5, numpy.float32)}, self.root / "x")
        trit("convert", self.root / "x", self.root / "own", "--to", "trit")
        numpy.testing.assert_array_equal(load_file(self.root / "own")["fc.weight"], pack_rows(t))


if __name__ == "__main__":
    unittest.main()
