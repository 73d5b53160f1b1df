# SPDX-License-Identifier: MIT
"""torchao's `quantize_` with ternary layers: `quantize_(model, trit.TritConfig())`."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import Linear
from torchao.core.config import AOBaseConfig
from torchao.quantization.transform_module import register_quantize_module_handler

from .convert import bit_linear_of
from .nn import Norm, Scale
from .ops import DEFAULT_EPS, Backward
from .stored import freeze


@dataclasses.dataclass
class TritConfig(AOBaseConfig):
    """torch.nn.Linear to trit.nn.BitLinear, with the same Parameters; with `packed` to PackedBitLinear, for inference.

    The options are those of trit.convert, which reports what it leaves; quantize_ takes a filter of its own.
    """

    norm: Norm = "rms"
    eps: float = DEFAULT_EPS
    scale: Scale = "tensor"
    packed: bool = False
    backward: Backward = "exact"
    stochastic_rounding: bool = False


def _transform(module: torch.nn.Module, config: TritConfig) -> torch.nn.Module:
    if not isinstance(module, Linear):
        raise TypeError(f"trit.TritConfig: a {type(module).__name__}, wanted torch.nn.Linear")
    layer = bit_linear_of(module, config.norm, config.eps, config.scale, config.backward,
                          config.stochastic_rounding)
    return freeze(layer) if config.packed else layer


register_quantize_module_handler(TritConfig)(_transform)
