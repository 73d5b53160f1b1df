# SPDX-License-Identifier: MIT
"""Ternary (1.58-bit, BitNet b1.58) linear layers for PyTorch.

    model = torch.nn.Sequential(trit.nn.BitLinear(4096, 512), ...)    # or trit.convert(model)
    ...                                                               # train as always
    trit.save(model, "model.safetensors")                             # 2 bits per weight
    trit.freeze(model)                                                # fast inference here

docs/python.md is the guide.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any

import torch as _torch

from . import nn, ops
from ._library import INFO as _INFO
from .convert import Conversion, convert, set_lambda
from .stored import Stored, freeze, load, load_into, pack, save

__version__: str = _INFO.version


def backends() -> list[str]:
    """The backends that this build runs here, slowest first: "scalar", ..., "cuda"."""
    return [*_INFO.backends, *(["cuda"] if _INFO.cuda and _torch.cuda.is_available() else [])]


if _TYPE_CHECKING:
    from . import fsdp, hf
    from .ao import TritConfig


def __getattr__(name: str) -> _Any:
    # Only what is asked for imports torchao, transformers or torch.distributed.
    if name == "TritConfig":
        from .ao import TritConfig
        return TritConfig
    if name in ("fsdp", "hf"):
        import importlib
        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module 'trit' has no attribute {name!r}")


__all__ = ["Conversion", "Stored", "TritConfig", "__version__", "backends", "convert", "freeze", "fsdp", "hf", "load", "load_into",
           "nn", "ops", "pack", "save", "set_lambda"]
