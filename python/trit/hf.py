# SPDX-License-Identifier: MIT
"""BitNet models of Hugging Face's transformers on trit's kernels.

    model = transformers.AutoModelForCausalLM.from_pretrained(...)    # quant_method "bitnet"
    trit.hf.swap_(model)
    trit.hf.save_pretrained(model, "folder")                          # transformers loads it again
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from . import ops
from .nn import BitLinear, PackedBitLinear, Scale
from .ops import DEFAULT_EPS
from .stored import freeze


def _float(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().float()


def _packed(t: Tensor, beta: Tensor, bias: Tensor | None, norm: Any) -> PackedBitLinear:
    """From ternary values t [N, K], their scale, and a LlamaRMSNorm or None."""
    out_features, in_features = t.shape
    scale: Scale = "tensor" if beta.numel() == 1 else "row"
    eps = DEFAULT_EPS if norm is None else float(norm.variance_epsilon)
    layer = PackedBitLinear(in_features, out_features, bias is not None, norm="none" if norm is None else "rms", eps=eps,
                            scale=scale, device=t.device)
    state = {"weight": ops.ternarize_pack(t.float(), torch.ones(1, device=t.device)), "weight_scale": beta.reshape(-1)}
    if bias is not None:
        state["bias"] = bias
    if norm is not None:
        state["norm.weight"] = norm.weight.detach().float()
    layer.load_state_dict(state)
    return layer


def _unpacked(packed: Tensor) -> Tensor:
    """transformers' codes uint8 [N / 4, K], rows n, n + N / 4, ... in one byte, low bits first, t + 1, as int8 [N, K]."""
    return torch.cat([(packed >> shift & 3).to(torch.int8) - 1 for shift in (0, 2, 4, 6)])


def _swapped(name: str, module: Any, trainable: bool) -> Module:
    from transformers.integrations import bitnet

    if isinstance(module, bitnet.BitLinear):
        # The scale divides: y = q · tᵀ / (s * weight_scale).
        return _packed(_unpacked(module.weight), 1 / module.weight_scale.float(), _float(module.bias), module.rms_norm)
    if module.online_quant:
        layer = BitLinear(module.in_features, module.out_features, module.bias is not None,
                          norm="none" if module.rms_norm is None else "rms",
                          eps=DEFAULT_EPS if module.rms_norm is None else module.rms_norm.variance_epsilon,
                          device=module.weight.device, dtype=module.weight.dtype)
        layer.weight, layer.bias = module.weight, module.bias
        if layer.norm is not None:
            layer.norm.weight = module.rms_norm.weight
        return layer if trainable else freeze(layer)
    weight = module.weight.detach()
    if not bool(((weight == 0) | (weight.abs() == 1)).all()):
        raise ValueError(f"trit.hf.swap_: {name}.weight has values other than -1, 0 and +1")
    beta = module.weight_scale.detach().float()
    bias = _float(module.bias)
    return _packed(weight, beta, None if bias is None else bias * beta, module.rms_norm)


@torch.no_grad()
def swap_(model: Module, *, trainable: bool = False) -> list[str]:
    """Replaces the BitNet layers of a transformers model by trit's, in place; returns their names.

    Packed ("bitlinear") and offline ("autobitlinear") layers become PackedBitLinear, whatever their scale convention,
    with their inner norm where they have one. Online layers do too, and with `trainable` trit.nn.BitLinear with the same
    Parameters. Raises ValueError for a model without such layers.
    """
    from transformers.integrations import bitnet

    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, (bitnet.BitLinear, bitnet.AutoBitLinear))}
    if not layers:
        raise ValueError(f"trit.hf.swap_: {type(model).__name__} has no BitNet layers of transformers "
                         "(quantization_config with quant_method \"bitnet\"); for torch.nn.Linear there is trit.convert")
    for name, module in layers.items():
        layer = _swapped(name, module, trainable).train(module.training)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    return list(layers)


def _own(name: str, layer: BitLinear | PackedBitLinear) -> dict[str, Tensor]:
    """transformers' tensors of a layer, for AutoBitLinear in the mode "offline", whose scale multiplies."""
    if layer.out_features % 4 != 0:
        raise ValueError(f"trit.hf.save_pretrained: {name} has {layer.out_features} outputs, wanted a multiple of 4")
    if layer.scale != "tensor":
        kind = "row" if layer.scale == "row" else "group"
        raise ValueError(f"trit.hf.save_pretrained: {name} has a weight scale per {kind}, wanted one: transformers has no other")
    packed = layer if isinstance(layer, PackedBitLinear) else freeze(layer)
    assert isinstance(packed, PackedBitLinear)
    ones = torch.ones(1, device=packed.weight.device)
    t = (ops.dequantize(packed.weight, ones, packed.in_features) + 1).to(torch.uint8)
    codes = torch.zeros_like(t[: len(t) // 4])
    for field, part in enumerate(t.chunk(4)):
        codes |= part << (2 * field)
    beta = packed.weight_scale
    own = {"weight": codes, "weight_scale": beta}
    if packed.bias is not None:
        own["bias"] = packed.bias / beta  # which is multiplied with the product
    if packed.norm is not None:
        own["rms_norm.weight"] = packed.norm.weight.detach()
    return {f"{name}.{key}": value for key, value in own.items()}


@torch.no_grad()
def save_pretrained(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """Writes a transformers model with trit's layers as a folder that transformers loads as packed BitNet.

    config.json gets quantization_config: bitnet, "autobitlinear", "offline", and whether the layers have inner norms,
    which must be all or none, with one eps. `options` go to the model's own save_pretrained. Raises ValueError for
    layers that transformers cannot hold: outputs that are no multiple of 4, a weight scale per row or group.
    """
    from transformers import BitNetQuantConfig

    layers = {name: module for name, module in model.named_modules() if isinstance(module, (BitLinear, PackedBitLinear))}
    norms = {None if layer.norm is None else layer.eps for layer in layers.values()}
    if len(norms) != 1:
        raise ValueError(f"trit.hf.save_pretrained: the layers have the norms {sorted(map(str, norms))}, wanted one kind "
                         "for all, and at least one layer")
    (eps,) = norms
    tensors = {key: value for key, value in model.state_dict().items()
               if not any(key.startswith(name + ".") for name in layers)}
    for name, layer in layers.items():
        tensors.update(_own(name, layer))
    floats = sorted({name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)})
    before, quantizer = getattr(model.config, "quantization_config", None), getattr(model, "hf_quantizer", None)
    model.config.quantization_config = BitNetQuantConfig(floats or None, linear_class="autobitlinear",
                                                         use_rms_norm=eps is not None, rms_norm_eps=eps or DEFAULT_EPS)
    model.hf_quantizer = None  # it would save its own layers
    try:
        model.save_pretrained(folder, state_dict=tensors, **options)
    finally:
        model.hf_quantizer = quantizer
        if before is None:
            del model.config.quantization_config
        else:
            model.config.quantization_config = before
