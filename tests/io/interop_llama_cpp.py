#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Models that `trit convert --to gguf` writes, run by llama.cpp: interop_llama_cpp.py [--trit build/bin/trit] [--folder .cache/llama_cpp].

Small random models of transformers become GGUF files, with float matrices and with ternary ones. llama.cpp loads them by
the names and keys that they have, and its logits are those of transformers: within float32's rounding for float matrices,
within the int8 of its own activations for ternary ones. No text: the files have no tokenizer.
llama.cpp comes as the library inside PyPI's xllamacpp (34 MB, a binary wheel; kept in the folder), of which nothing else is used.
Not one of the default tests; `make interop` runs it.
"""
import ctypes
import zipfile
from pathlib import Path

from interop_library import download, load_library, main

PACKAGE, VERSION = "xllamacpp", "2026.10.11549"


def fetch_library(folder: Path) -> Path:
    library = folder / "xllamacpp" / "xllamacpp.abi3.so"
    if not library.exists():
        download(PACKAGE, VERSION, folder, "--only-binary")
        with zipfile.ZipFile(next(folder.glob(f"{PACKAGE}-{VERSION}-*.whl"))) as wheel:
            wheel.extractall(folder)
    return library


class Struct(ctypes.Structure):
    """Parameters and batches of llama.cpp, which its functions return and take by value. What is in them is its own
    affair; room beyond their size does no harm."""
    _fields_ = [("bytes", ctypes.c_byte * 1024)]


class LlamaCpp:
    def __init__(self, library: Path):
        pointer, integer = ctypes.c_void_p, ctypes.c_int32
        self.library = load_library(library, {
            "llama_backend_init": (None,),
            "llama_model_default_params": (Struct,), "llama_context_default_params": (Struct,),
            "llama_model_load_from_file": (pointer, ctypes.c_char_p, Struct),
            "llama_init_from_model": (pointer, pointer, Struct),
            "llama_batch_get_one": (Struct, pointer, integer), "llama_decode": (integer, pointer, Struct),
            "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), pointer, integer),
            "llama_model_get_vocab": (pointer, pointer), "llama_vocab_n_tokens": (integer, pointer),
            "llama_free": (None, pointer), "llama_model_free": (None, pointer)})
        # Its log would hide that of the tests.
        self.log = ctypes.CFUNCTYPE(None, integer, ctypes.c_char_p, pointer)(lambda level, text, data: None)
        self.library.llama_log_set(self.log, None)
        self.library.llama_backend_init()

    def last_logits(self, path: Path, tokens: list[int]):
        import numpy
        library = self.library
        model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        if not model:
            raise AssertionError(f"llama.cpp cannot load {path}")
        context = library.llama_init_from_model(model, library.llama_context_default_params())
        if not context:
            raise AssertionError(f"llama.cpp makes no context of {path}")
        try:
            ids = (ctypes.c_int32 * len(tokens))(*tokens)
            if library.llama_decode(context, library.llama_batch_get_one(ctypes.cast(ids, ctypes.c_void_p), len(tokens))) != 0:
                raise AssertionError("llama_decode fails")
            count = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
            return numpy.array(library.llama_get_logits_ith(context, -1)[:count], numpy.float32)
        finally:
            library.llama_free(context)
            library.llama_model_free(model)


def tests(llama: LlamaCpp) -> type:
    import numpy
    import torch
    import transformers
    from safetensors.numpy import load_file

    from interop_files import Folder, trit

    common = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64, "hidden_act": "silu"}
    tokens = [5, 17, 3, 88, 41, 2, 60, 9]

    def unpack(packed: numpy.ndarray) -> numpy.ndarray:
        fields = numpy.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1).reshape(len(packed), -1)
        return numpy.where(fields == 3, numpy.float32(-1), fields.astype(numpy.float32))

    class AgainstLlamaCpp(Folder):
        def check(self, model) -> None:
            torch.manual_seed(3)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, 1 if parameter.ndim == 1 else 0, 0.1)
            model.eval()
            folder, own, x = self.root / "hf", self.root / "own", self.root / "x"
            model.save_pretrained(folder)
            logits = lambda: model(torch.tensor([tokens])).logits[0, -1].detach().numpy()  # noqa: E731
            trit("convert", folder, x, "--to", "gguf")
            found, wanted = llama.last_logits(x, tokens), logits()
            # float32 here and there, but llama.cpp's CPU kernels may keep K and V as float16.
            numpy.testing.assert_allclose(found, wanted, atol=4e-3 * numpy.abs(wanted).max())
            trit("pack", folder, own, "--filter", r"_proj\.weight$", "--scale", "row")
            trit("diff", folder, x)
            tensors = load_file(own)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name.endswith("_proj.weight"):
                        scale = tensors[name + "_scale"].astype(numpy.float16).astype(numpy.float32)
                        parameter.copy_(torch.from_numpy(unpack(tensors[name]) * scale[:, None]))
            wanted = logits()
            for kind in ("tq1_0", "tq2_0"):
                trit("convert", own, x, "--to", "gguf", "--type", kind)
                found = llama.last_logits(x, tokens)
                error = numpy.abs(found - wanted).max() / numpy.abs(wanted).max()
                cosine = found @ wanted / numpy.linalg.norm(found) / numpy.linalg.norm(wanted)
                print(f"{type(model).__name__} {kind}: largest error {error:.2%}, cosine {cosine:.5f}", flush=True)
                self.assertGreater(cosine, 0.995)

        def test_llama(self):
            for change in ({}, {"tie_word_embeddings": True}, {"attention_bias": True}, {"head_dim": 128},
                           {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}}):
                with self.subTest(change):
                    self.check(transformers.LlamaForCausalLM(transformers.LlamaConfig(**common | change)))

        def test_qwen3(self):
            self.check(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**common, head_dim=64)))

        def test_bitnet(self):
            config = transformers.BitNetConfig(**common, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2)
            self.check(transformers.BitNetForCausalLM(config))

    return AgainstLlamaCpp


if __name__ == "__main__":
    main(__doc__.splitlines()[0], "llama_cpp", lambda folder: tests(LlamaCpp(fetch_library(folder))))
