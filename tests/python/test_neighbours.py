# SPDX-License-Identifier: MIT
"""torchao's quantize_ and BitNet models of transformers."""

import copy

import pytest
import torch
import torch._dynamo

import trit
from trit.nn import BitLinear, PackedBitLinear


@pytest.fixture(autouse=True)
def as_written():
    """The layers of transformers are decorated with torch.compile: here they run as written."""
    with torch._dynamo.config.patch(disable=True):
        yield


def test_torchao():
    torchao = pytest.importorskip("torchao")
    model = torch.nn.Sequential(torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    twin = copy.deepcopy(model)
    held = [model[0].weight, model[2].weight]
    torchao.quantize_(model, trit.TritConfig(scale="row"), lambda module, name: isinstance(module, torch.nn.Linear) and name != "2")
    assert isinstance(model[0], BitLinear) and model[0].weight is held[0] and type(model[2]) is torch.nn.Linear
    trit.convert(twin, lambda name, _: name != "2", scale="row")
    x = torch.randn(3, 24)
    assert torch.equal(model(x), twin(x))
    torchao.quantize_(model, trit.TritConfig(packed=True))
    assert isinstance(model[2], PackedBitLinear)


def bitnet(linear_class, mode="offline", use_rms_norm=False):
    """A BitNet model of transformers with random ternary weights."""
    transformers = pytest.importorskip("transformers")
    from transformers.integrations import bitnet as integration

    torch.manual_seed(1)
    config = transformers.BitNetConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
    model = transformers.BitNetForCausalLM(config).eval()
    quantization = transformers.BitNetQuantConfig(linear_class=linear_class, quantization_mode=mode,
                                                  use_rms_norm=use_rms_norm)
    integration.replace_with_bitnet_linear(model, ["lm_head"], quantization)
    for module in model.modules():
        if not isinstance(module, (integration.BitLinear, integration.AutoBitLinear)):
            continue
        module.to_empty(device="cpu")
        shape = (module.out_features, module.in_features)
        t = torch.randint(-1, 2, shape)
        if isinstance(module, integration.BitLinear):
            module.weight = integration.pack_weights(t.clone())
        else:
            module.weight.data = t.float() if mode == "offline" else torch.randn(shape)
        if mode == "offline":
            scale = 0.5 + torch.rand(1)
            module.weight_scale = 1 / (scale * 0.05) if linear_class == "bitlinear" else scale * 0.05
        if module.rms_norm is not None:
            module.rms_norm.weight.data = 0.5 + torch.rand(module.in_features)
    return model


@pytest.mark.parametrize("variant", [("bitlinear",), ("autobitlinear",), ("autobitlinear", "online"),
                                     ("bitlinear", "offline", True), ("autobitlinear", "online", True)])
def test_transformers(variant):
    model = bitnet(*variant)
    layers = {}
    hooks = [module.register_forward_hook(lambda module, inputs, output, name=name: layers.update({name: (inputs[0], output)}))
             for name, module in model.named_modules() if type(module).__name__ in ("BitLinear", "AutoBitLinear")]
    tokens = torch.randint(0, 64, (2, 12))
    with torch.no_grad():
        want = model(tokens).logits
    for hook in hooks:
        hook.remove()
    names = trit.hf.swap_(model)
    assert sorted(names) == sorted(layers) and len(names) == 14
    with torch.no_grad():
        for name, (x, y) in layers.items():
            found = model.get_submodule(name)(x)
            # A code may round the other way where x / s is half-way: transformers' own steps differ by as much.
            error = (found - y).norm() / y.norm()
            assert error <= (1e-6 if variant[-1] is not True else 2e-3), (name, float(error))
        found = model(tokens).logits
    assert (found - want).norm() / want.norm() <= 5e-3
    generated = model.generate(tokens, max_new_tokens=4, do_sample=False)
    assert generated.shape == (2, 16)
    with pytest.raises(ValueError, match="no BitNet layers"):
        trit.hf.swap_(model)


@pytest.mark.parametrize("variant", [("bitlinear",), ("autobitlinear", "online", True)])
def test_save_pretrained(variant, tmp_path):
    """What we write is loaded by transformers, and runs there and, swapped again, here."""
    transformers = pytest.importorskip("transformers")
    model = bitnet(*variant)
    trit.hf.swap_(model)
    tokens = torch.randint(0, 64, (2, 12))
    with torch.no_grad():
        want = model(tokens).logits
        trit.hf.save_pretrained(model, tmp_path)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
        theirs = again(tokens).logits
        assert (theirs - want).norm() / want.norm() <= 5e-3
        assert len(trit.hf.swap_(again)) == 14
        assert torch.equal(again(tokens).logits, want)
    odd = torch.nn.Sequential(BitLinear(8, 6))
    with pytest.raises(ValueError, match="6 outputs, wanted a multiple of 4"):
        trit.hf.save_pretrained(odd, tmp_path)
