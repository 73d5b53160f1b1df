# SPDX-License-Identifier: MIT
"""GGUF files of the trit command read by the package gguf, and its files read by the command."""

import json
import subprocess
import os
import unittest

import gguf
import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

from interop_files import Folder, pack_rows, save_own, trit

HEAD = 64
HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, BLOCKS, VOCABULARY = 256, 512, 4, 2, 2, 96
# Class of transformers, architecture of gguf, modules beside those of a llama and the size of their norms.
ARCHITECTURES = {
    "LlamaForCausalLM": (gguf.MODEL_ARCH.LLAMA, {}),
    "Qwen3ForCausalLM": (gguf.MODEL_ARCH.QWEN3, {"self_attn.q_norm": 2 * HEAD, "self_attn.k_norm": 2 * HEAD}),
    "BitNetForCausalLM": (gguf.MODEL_ARCH.BITNET, {"self_attn.attn_sub_norm": HIDDEN, "mlp.ffn_sub_norm": FEED_FORWARD}),
    "BitnetForCausalLM": (gguf.MODEL_ARCH.BITNET, {"self_attn.inner_attn_ln": HIDDEN, "mlp.ffn_layernorm": FEED_FORWARD}),
}
# What gguf's map does not know, and what llama.cpp calls it.
MISSING_IN_GGUF = {"self_attn.attn_sub_norm": "attn_sub_norm", "mlp.ffn_sub_norm": "ffn_sub_norm"}


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(rows: numpy.ndarray, heads: int) -> numpy.ndarray:
    """As llama.cpp's converter orders the rows of a llama's Q and K."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def said(*arguments) -> str:
    """What the command writes to stderr."""
    done = subprocess.run([os.environ["TRIT_COMMAND"], *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"trit {arguments}: exit code {done.returncode}\n{done.stderr}")
    return done.stderr


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

    def language_model(self, class_name: str, tied: bool = False) -> tuple[dict, dict, dict]:
        """A small one: ternary matrices, other tensors, config.json."""
        extra = ARCHITECTURES[class_name][1]
        head = HEAD * (2 if class_name == "Qwen3ForCausalLM" else 1)
        shapes = {"self_attn.q_proj": (HEADS * head, HIDDEN), "self_attn.k_proj": (KV_HEADS * head, HIDDEN),
                  "self_attn.v_proj": (KV_HEADS * head, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * head),
                  "mlp.gate_proj": (FEED_FORWARD, HIDDEN), "mlp.up_proj": (FEED_FORWARD, HIDDEN),
                  "mlp.down_proj": (HIDDEN, FEED_FORWARD)}
        norms = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN, **extra}
        random = lambda *shape: self.random.standard_normal(shape).astype(numpy.float16)  # noqa: E731
        matrices, others = {}, {"model.embed_tokens.weight": random(VOCABULARY, HIDDEN), "model.norm.weight": random(HIDDEN)}
        if not tied:
            others["lm_head.weight"] = random(VOCABULARY, HIDDEN)
        for block in range(BLOCKS):
            for name, (rows, columns) in shapes.items():
                scale = self.random.uniform(0.5, 2, rows).astype(numpy.float16).astype(numpy.float32)
                matrices[f"model.layers.{block}.{name}.weight"] = (self.ternary(rows, columns), scale)
            for name, size in norms.items():
                others[f"model.layers.{block}.{name}.weight"] = random(size)
            if class_name == "LlamaForCausalLM":
                for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"):
                    others[f"model.layers.{block}.{name}.bias"] = random(shapes[name][0])
        config = {"architectures": [class_name], "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD,
                  "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
                  "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "vocab_size": VOCABULARY, "hidden_act": "silu",
                  "tie_word_embeddings": tied, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}
        if head != HEAD:
            config["head_dim"] = head
        return matrices, others, config

    def test_names_and_keys_of_llama_cpp(self):
        for class_name, (architecture, extra) in ARCHITECTURES.items():
            for tied in (False, True):
                with self.subTest(class_name=class_name, tied=tied):
                    matrices, others, config = self.language_model(class_name, tied)
                    save_own(self.root / "own", matrices, others, config=config)
                    text = said("convert", self.root / "own", self.root / "x", "--to", "gguf", "--type", "tq2_0")
                    self.assertIn("no tokenizer is written", text)
                    self.assertNotIn("has no place", text)
                    reader = GGUFReader(self.root / "x")
                    tensors = {tensor.name: tensor for tensor in reader.tensors}
                    names = gguf.get_tensor_name_map(architecture, BLOCKS)
                    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[architecture]}
                    wanted = {}
                    for name in (*matrices, *others):
                        mapped = names.get_name(name, (".weight", ".bias"))
                        if name == "lm_head.weight":
                            mapped = "output.weight"  # BitNet has none in gguf's map, its output is tied in llama.cpp
                        elif mapped is None:
                            block, module = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
                            mapped = f"blk.{block}.{MISSING_IN_GGUF[module]}.weight"
                        wanted[name] = mapped
                        parts = mapped.rsplit(".", 1)[0].split(".")
                        if (architecture, name) != (gguf.MODEL_ARCH.BITNET, "lm_head.weight"):
                            self.assertIn(".".join("{bid}" if part.isdigit() else part for part in parts), known)
                    self.assertEqual(set(tensors), set(wanted.values()))
                    self.assertEqual("output.weight" in tensors, not tied)
                    for name, (t, scale) in matrices.items():
                        values = t * scale[:, None]
                        self.assert_rows(tensors[wanted[name]], values, name, class_name)
                    for name, values in others.items():
                        self.assert_rows(tensors[wanted[name]], values, name, class_name)
                    self.check_keys(reader, architecture, config)
                    self.check_way_back()

    def assert_rows(self, tensor, values, name: str, class_name: str) -> None:
        heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else 0
        if class_name == "LlamaForCausalLM" and heads:
            values = permute(values, heads)
        if values.ndim == 1:
            self.assertEqual(tensor.tensor_type, GGMLQuantizationType.F32, name)
        numpy.testing.assert_array_equal(dequantize(tensor.data, tensor.tensor_type), values.astype(numpy.float32), name)

    def check_keys(self, reader, architecture, config: dict) -> None:
        keys, name = gguf.Keys, gguf.MODEL_ARCH_NAMES[architecture]
        head = config.get("head_dim", HEAD)
        wanted = {keys.General.ARCHITECTURE: name, keys.General.NAME: "own", keys.General.FILE_TYPE: 37,
                  keys.LLM.BLOCK_COUNT: BLOCKS, keys.LLM.CONTEXT_LENGTH: 128, keys.LLM.EMBEDDING_LENGTH: HIDDEN,
                  keys.LLM.FEED_FORWARD_LENGTH: FEED_FORWARD, keys.LLM.VOCAB_SIZE: VOCABULARY,
                  keys.Attention.HEAD_COUNT: HEADS, keys.Attention.HEAD_COUNT_KV: KV_HEADS,
                  keys.Attention.LAYERNORM_RMS_EPS: numpy.float32(1e-5), keys.Rope.FREQ_BASE: 500000.0,
                  keys.Rope.DIMENSION_COUNT: head, keys.Tokenizer.MODEL: "none"}
        if "head_dim" in config:
            wanted |= {keys.Attention.KEY_LENGTH: head, keys.Attention.VALUE_LENGTH: head}
        if name == "bitnet":
            wanted |= {keys.Rope.SCALING_TYPE: "linear", keys.Rope.SCALING_FACTOR: 1.0}
        found = {key: field.contents() for key, field in reader.fields.items()
                 if not key.startswith(("GGUF.", "trit.", "huggingface.", "general.alignment", "general.quantization_version",
                                        "general.type"))}
        self.assertEqual(found, {key.format(arch=name): value for key, value in wanted.items()})

    def check_way_back(self) -> None:
        """x -> own form, and x -> GGUF -> own form: the bits of self.root / "own"."""
        own, x, back = self.root / "own", self.root / "x", self.root / "back"
        trit("diff", own, x)
        trit("diff", x, own)
        trit("convert", x, self.root / "again", "--to", "gguf", "--type", "tq1_0")
        for path in (x, self.root / "again"):
            trit("convert", path, back, "--to", "trit")
            wanted, found = load_file(own), load_file(back)
            self.assertEqual(set(found), set(wanted))
            for name, values in wanted.items():
                self.assertEqual(found[name].dtype, values.dtype, name)
                numpy.testing.assert_array_equal(found[name], values, name)
            trit("convert", back, self.root / "x2", "--to", "gguf", "--type", "tq2_0")
            trit("diff", x, self.root / "x2")

    def test_a_foreign_llama_comes_under_the_names_of_transformers(self):
        """A GGUF file as llama.cpp's converter writes it, without what this library adds."""
        matrices, others, config = self.language_model("LlamaForCausalLM", tied=True)
        for name, (t, scale) in matrices.items():
            t[:, ::256] = 1
            matrices[name] = (t, numpy.full(1, 0.5, numpy.float32))
        writer = GGUFWriter(self.root / "x", "llama")
        writer.add_block_count(BLOCKS), writer.add_context_length(128), writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(FEED_FORWARD), writer.add_head_count(HEADS), writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-5), writer.add_rope_freq_base(500000.0)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, BLOCKS)
        for name, values in others.items():
            heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else 1
            values = values if heads == 1 else permute(values, heads)
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), values)
        for name, (t, scale) in matrices.items():
            heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else 0
            values = t * scale
            data = quantize((permute(values, heads) if heads else values).astype(numpy.float32), GGMLQuantizationType.TQ2_0)
            writer.add_tensor(names.get_name(name, (".weight",)), data, raw_dtype=GGMLQuantizationType.TQ2_0)
        finish(writer)
        save_own(self.root / "own", matrices, others)
        trit("diff", self.root / "own", self.root / "x")
        trit("convert", self.root / "x", self.root / "hf", "--to", "hf")
        trit("diff", self.root / "own", self.root / "hf")
        found = json.loads((self.root / "hf" / "config.json").read_text())
        for key in ("architectures", "hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers",
                    "intermediate_size", "vocab_size", "max_position_embeddings", "tie_word_embeddings"):
            self.assertEqual(found[key], config[key], key)
        self.assertEqual(found["rope_theta"], 500000.0)

    def test_what_llama_cpp_has_no_place_for_is_told(self):
        matrices, others, config = self.language_model("LlamaForCausalLM")
        own, x = self.root / "own", self.root / "x"
        others["model.layers.0.self_attn.q_proj.norm.weight"] = numpy.ones(HIDDEN, numpy.float32)
        others["model.extra.weight"] = numpy.ones(3, numpy.float32)
        save_own(own, matrices, others, config=config | {"hidden_act": "relu2"})
        text = said("convert", own, x, "--to", "gguf")
        self.assertIn('has no place for tensor "model.extra.weight" and 1 more', text)
        self.assertIn('hidden_act is "relu2"', text)
        self.assertIn("blk.0.attn_q.norm.weight", {tensor.name for tensor in GGUFReader(x).tensors})
        trit("diff", own, x)
        # What is not written is no half of a model: names and keys stay as they are.
        for change, why in (({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, '"yarn"'),
                            ({"num_hidden_layers": None}, "num_hidden_layers"), ({"rms_norm_eps": "x"}, "rms_norm_eps"),
                            ({"num_key_value_heads": 3}, "4 attention heads of size 64 and 3")):
            save_own(own, matrices, others, config=config | change)
            text = said("convert", own, x, "--to", "gguf")
            self.assertIn("names and keys are not those of llama.cpp", text)
            self.assertIn(why, text)
            self.assertIn("model.norm.weight", {tensor.name for tensor in GGUFReader(x).tensors})
        # Float weights that transformers makes ternary in each pass.
        online = {"quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}}
        floats = {name: t.astype(numpy.float16) for name, (t, _) in matrices.items()}
        for ternary_too in (False, True):
            save_own(own, matrices if ternary_too else {}, others if ternary_too else others | floats, config=config | online)
            text = said("convert", own, x, "--to", "gguf")
            self.assertEqual('quantization_mode "online"' in text, not ternary_too)
            self.assertEqual(GGUFReader(x).fields["general.file_type"].contents(), 37 if ternary_too else 1)
        save_own(own, matrices, others, config=config | {"architectures": ["OtherForCausalLM"]})
        self.assertNotIn("warning", said("convert", own, x, "--to", "gguf"))
        self.assertEqual(GGUFReader(x).fields["general.architecture"].contents(), "trit")
        # An architecture that is asked for, and names that --map gives.
        save_own(own, matrices, others, config=config)
        said("convert", own, x, "--to", "gguf", "--architecture", "mine")
        self.assertIn("model.norm.weight", {tensor.name for tensor in GGUFReader(x).tensors})
        (self.root / "map").write_text(json.dumps({r"model\.norm\.weight": "mine", r".*\.norm\.weight": None,
                                                   "model.extra.weight": None}))
        text = said("convert", own, x, "--to", "gguf", "--map", self.root / "map")
        self.assertNotIn("has no place", text)
        names = {tensor.name for tensor in GGUFReader(x).tensors}
        self.assertTrue({"mine", "blk.0.attn_q.weight"} <= names)
        self.assertFalse({"output_norm.weight", "blk.0.attn_q.norm.weight"} & names)


if __name__ == "__main__":
    unittest.main()
