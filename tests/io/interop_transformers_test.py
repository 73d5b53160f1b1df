# SPDX-License-Identifier: MIT
"""Random BitNet models: what the trit command writes is loaded and run by transformers, what transformers saves is
read by the command. Both linear classes, with and without the norm in front of a layer, whole and in shards; and models
whose float weights transformers makes ternary in each pass ("online"): kept so, and packed.
"""

import json
import os
import subprocess
import unittest
from pathlib import Path

# The layers of transformers are decorated with torch.compile: here they run as written.
os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from transformers import (AutoModelForCausalLM, BitNetConfig, BitNetForCausalLM, GPT2Config, GPT2LMHeadModel,
                          LlamaConfig, LlamaForCausalLM, logging)
from transformers.integrations.bitnet import ActQuant

from interop_files import SEED, Folder, refusal, save_own, trit

TOKENS = 64
logging.set_verbosity_error()
logging.disable_progress_bar()


def small_config() -> BitNetConfig:
    config = BitNetConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                          num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                          bos_token_id=1, eos_token_id=2)
    config.architectures = ["BitNetForCausalLM"]
    config.dtype = "float32"
    return config


def load(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def activations(module, x: torch.Tensor) -> numpy.ndarray:
    """The int8 activations of a layer of transformers."""
    if hasattr(module, "activation_quant"):
        return module.activation_quant(x)[0].numpy()
    scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp_(min=1e-5)
    return (ActQuant.apply(x) * scale).round().to(torch.int8).numpy()


class Transformers(Folder):
    def own_model(self, with_norms: bool) -> dict:
        """A random ternary BitNet model in the stored form; returns its matrices, name -> (t, scale), and keeps the
        weights of their norms, layer -> values."""
        torch.manual_seed(SEED)
        matrices, others = {}, {}
        self.norms = {}
        for name, value in BitNetForCausalLM(small_config()).state_dict().items():
            if name.endswith("proj.weight"):
                layer = name.removesuffix(".weight")
                matrices[name] = (self.ternary(*value.shape), numpy.float32(self.random.uniform(0.02, 0.2)))
                if with_norms:
                    self.norms[layer] = self.random.uniform(0.5, 1.5, value.shape[1]).astype(numpy.float32)
                    others[layer + ".norm.weight"] = self.norms[layer]
            else:
                others[name] = value.numpy()
        self.assertEqual(len(matrices), 14)
        save_own(self.root / "own", matrices, others)
        small_config().to_json_file(self.root / "config.json")
        return matrices

    def ours(self, inputs: dict) -> dict:
        """"<layer>.q" and "<layer>.y" of this library for "<layer>.x", with a norm where there is its weight."""
        save_file(inputs, self.root / "inputs")
        subprocess.run([os.environ["TRIT_INTEROP_PROGRAM"], "linear", self.root / "own", self.root / "inputs",
                        self.root / "outputs"], check=True)
        return load_file(self.root / "outputs")

    def check_layers(self, model, matrices: dict) -> None:
        """int8 activations bit for bit, outputs to 1e-6 of the largest: for the layer alone, and with its norm in
        front. There the two libraries' norms differ in the last bit, which moves an activation that lies between
        two integers: rows with such a one are left out, and are few."""
        generator = torch.Generator().manual_seed(SEED)
        theirs, alone, normed = {}, {}, {}
        for name, (t, _) in matrices.items():
            layer = name.removesuffix(".weight")
            module = model.get_submodule(layer)
            x = torch.randn(TOKENS, t.shape[1], generator=generator)
            with torch.no_grad():
                inside = module.rms_norm(x) if layer in self.norms else x
                theirs[layer] = (activations(module, inside), module(x).numpy())
            alone[layer + ".x"] = inside.numpy()
            if layer in self.norms:
                normed[layer + ".x"] = x.numpy()
                normed[layer + ".norm.weight"] = self.norms[layer]
        found = self.ours(alone)
        for layer, (q, y) in theirs.items():
            numpy.testing.assert_array_equal(found[layer + ".q"], q, layer)
            numpy.testing.assert_allclose(found[layer + ".y"], y, rtol=0, atol=1e-6 * numpy.abs(y).max(), err_msg=layer)
        if not normed:
            return
        found = self.ours(normed)
        for layer, (q, y) in theirs.items():
            step = numpy.abs(found[layer + ".q"].astype(int) - q).max(axis=1)
            self.assertLessEqual(step.max(), 1)
            same = step == 0
            self.assertGreater(same.mean(), 0.9, layer)
            numpy.testing.assert_allclose(found[layer + ".y"][same], y[same], rtol=0, atol=1e-6 * numpy.abs(y).max(),
                                          err_msg=layer)

    def test_it_loads_what_we_write(self):
        for with_norms in (False, True):
            matrices = self.own_model(with_norms)
            logits = []
            for convention, kind in (("multiply", "AutoBitLinear"), ("divide", "BitLinear")):
                for shard in ((), ("--shard-size", "30KB")):
                    with self.subTest(norms=with_norms, convention=convention, shard=shard):
                        folder = self.root / f"{convention}-{with_norms}-{len(shard)}"
                        trit("convert", self.root / "own", folder, "--to", "hf", "--scale-convention", convention,
                             "--config", self.root / "config.json", *shard)
                        self.assertEqual((folder / "model.safetensors.index.json").exists(), bool(shard))
                        model = load(folder)
                        for name in matrices:
                            module = model.get_submodule(name.removesuffix(".weight"))
                            self.assertEqual(type(module).__name__, kind)
                        self.check_layers(model, matrices)
                        self.assertEqual(type(model.lm_head).__name__, "Linear")
                        with torch.no_grad():
                            logits.append(model(torch.arange(12)[None]).logits.numpy())
                        trit("diff", self.root / "own", folder, "--tolerance", "1e-6")
            for other in logits[1:]:  # one model, however it was written
                numpy.testing.assert_allclose(other, logits[0], rtol=0, atol=1e-4 * numpy.abs(logits[0]).max())

    def test_we_read_what_it_saves(self):
        self.own_model(False)
        for convention in ("multiply", "divide"):
            written = self.root / convention
            trit("convert", self.root / "own", written, "--to", "hf", "--scale-convention", convention,
                 "--config", self.root / "config.json")
            for shard in (False, True):
                saved = self.root / f"{convention}-saved-{shard}"
                # In its original format transformers 5.23 cannot save an autobitlinear model (its unpacking has no
                # reverse); otherwise it saves the matrices as floats.
                load(written).save_pretrained(saved, max_shard_size="40KB" if shard else "1GB",
                                              save_original_format=convention == "divide")
                self.assertEqual((saved / "model.safetensors.index.json").exists(), shard)
                trit("diff", self.root / "own", saved, "--tolerance", "1e-6")
                back = self.root / f"{convention}-back-{shard}"
                trit("convert", saved, back, "--to", "trit")
                trit("diff", back, self.root / "own", "--tolerance", "1e-6")

    def test_the_class_is_kept(self):
        """bitlinear stays bitlinear and autobitlinear autobitlinear, through every format that carries the config."""
        self.own_model(False)
        for convention, linear_class in (("multiply", "autobitlinear"), ("divide", "bitlinear")):
            first = self.root / f"{convention}-first"
            trit("convert", self.root / "own", first, "--to", "hf", "--scale-convention", convention,
                 "--config", self.root / "config.json")
            ways = {"hf": first, "own": self.root / f"{convention}.safetensors", "gguf": self.root / f"{convention}.gguf"}
            trit("convert", first, ways["own"], "--to", "trit")
            trit("convert", first, ways["gguf"], "--to", "gguf", "--type", "q2_0")
            for way, path in ways.items():
                with self.subTest(linear_class, way=way):
                    again = self.root / f"{convention}-{way}"
                    trit("convert", path, again, "--to", "hf")
                    self.assertEqual(quantization(again), quantization(first))
                    self.assertEqual(quantization(again)["linear_class"], linear_class)
                    load(again)
            other = "divide" if convention == "multiply" else "multiply"
            asked = self.root / f"{convention}-asked"
            trit("convert", ways["own"], asked, "--to", "hf", "--scale-convention", other)
            self.assertNotEqual(quantization(asked)["linear_class"], linear_class)


def quantization(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())["quantization_config"]


class Online(Folder):
    """Float weights that AutoBitLinear makes ternary in each pass."""

    def online(self, name: str, tied: bool = True, norms: bool = False, bias: bool = False, left_out=None) -> Path:
        torch.manual_seed(SEED)
        config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                             num_key_value_heads=2, vocab_size=96, max_position_embeddings=64, tie_word_embeddings=tied,
                             attention_bias=bias)
        config.architectures = ["LlamaForCausalLM"]
        tensors = {key: value.clone().contiguous() for key, value in LlamaForCausalLM(config).state_dict().items()
                   if key != "lm_head.weight" or not tied}
        if norms:
            for key in [key for key in tensors if key.endswith("proj.weight")]:
                weight = torch.from_numpy(self.random.uniform(0.5, 1.5, tensors[key].shape[1]).astype(numpy.float32))
                tensors[key.removesuffix("weight") + "rms_norm.weight"] = weight
        for key in [key for key in tensors if key.endswith("bias")]:
            tensors[key] = torch.from_numpy(self.random.uniform(-0.5, 0.5, tensors[key].shape).astype(numpy.float32))
        quantization_config = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online",
                               "use_rms_norm": norms, "rms_norm_eps": 1e-5, "modules_to_not_convert": left_out}
        folder = self.root / name
        folder.mkdir()
        save_torch(tensors, folder / "model.safetensors", {"format": "pt"})
        described = {**config.to_dict(), "dtype": "float32", "quantization_config": quantization_config}
        # Python's own writer, and a value that JSON does not have.
        (folder / "config.json").write_text(json.dumps({**described, "ours": [float("inf"), float("nan")]}))
        return folder

    def logits(self, folder: Path) -> numpy.ndarray:
        with torch.no_grad():
            return load(folder)(torch.arange(12)[None]).logits.numpy()

    def test_convert_keeps_online_and_pack_makes_it_offline(self):
        for name, options in {"tied": {}, "untied": {"tied": False}, "norms": {"norms": True}, "bias": {"bias": True},
                              "left out": {"tied": False, "left_out": ["lm_head", "layers.0.mlp", r"model\..*\.q_proj"]},
                              "empty": {"tied": False, "left_out": []},
                              "head": {"tied": False, "left_out": ["layers.1.mlp.up_proj"]}}.items():
            with self.subTest(name):
                source = self.online(name, **options)
                wanted = self.logits(source)
                scale = numpy.abs(wanted).max()
                # Kept as it is, also through the formats that carry the config.
                (self.root / "ways").mkdir(exist_ok=True)
                own = self.root / "ways" / f"{name}.safetensors"
                trit("convert", source, own, "--to", "trit")
                for way, path in (("again", source), ("own", own)):
                    kept = self.root / f"{name} {way}"
                    trit("convert", path, kept, "--to", "hf")
                    self.assertEqual(quantization(kept), quantization(source))
                    numpy.testing.assert_array_equal(self.logits(kept), wanted)
                # Packed: the same layers are ternary, the others float.
                packed = self.root / f"{name}.packed"
                report = json.loads(trit("pack", source, packed, "--json"))
                theirs = {f"{layer}.weight" for layer, module in load(source).named_modules()
                          if type(module).__name__ == "AutoBitLinear"}
                self.assertEqual({tensor["name"] for tensor in report["packed"]}, theirs)
                self.assertIn("model.embed_tokens.weight", {tensor["name"] for tensor in report["left_float"]})
                for convention in ((), ("--scale-convention", "divide")):
                    offline = self.root / f"{name} offline {len(convention)}"
                    trit("convert", packed, offline, "--to", "hf", *convention)
                    self.assertEqual(quantization(offline)["quantization_mode"], "offline")
                    self.assertEqual(quantization(offline)["use_rms_norm"], options.get("norms", False))
                    model = load(offline)
                    self.assertEqual({f"{layer}.weight" for layer, module in model.named_modules()
                                      if "BitLinear" in type(module).__name__}, theirs)
                    numpy.testing.assert_allclose(self.logits(offline), wanted, rtol=0, atol=2e-3 * scale)

    def test_an_online_model_cannot_be_half_packed(self):
        source = self.online("online")
        trit("pack", source, self.root / "half", "--filter", "q_proj")
        self.assertIn("one mode for all layers", refusal("convert", self.root / "half", self.root / "x", "--to", "hf"))
        self.assertIn("trit pack", refusal("convert", source, self.root / "x", "--to", "hf", "--scale-convention", "divide"))

    def test_a_float_model_stays_one(self):
        torch.manual_seed(SEED)
        for name, model in {"llama": LlamaForCausalLM(LlamaConfig(
                hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=96)),
                "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=64, n_embd=64, n_layer=1, n_head=4))}.items():
            with self.subTest(name):
                model.eval().save_pretrained(self.root / name)
                trit("convert", self.root / name, self.root / f"{name} again", "--to", "hf")
                self.assertEqual((self.root / f"{name} again" / "config.json").read_bytes(),
                                 (self.root / name / "config.json").read_bytes())
                numpy.testing.assert_array_equal(self.logits(self.root / f"{name} again"), self.logits(self.root / name))
        trit("pack", self.root / "llama", self.root / "llama.packed")
        trit("convert", self.root / "llama.packed", self.root / "llama packed", "--to", "hf")
        kinds = {layer: type(module).__name__ for layer, module in load(self.root / "llama packed").named_modules()
                 if "Linear" in type(module).__name__}
        self.assertEqual({layer for layer, kind in kinds.items() if kind == "Linear"}, {"lm_head"})
        self.assertEqual(len(kinds), 8)
        self.assertTrue(numpy.isfinite(self.logits(self.root / "llama packed")).all())
        # Conv1D of GPT-2 keeps its matrix transposed and is no Linear.
        self.assertIn("Conv1D", refusal("pack", self.root / "gpt2", self.root / "packed"))


if __name__ == "__main__":
    unittest.main()
