# SPDX-License-Identifier: MIT
"""Whole models: torch.nn.Linear to BitLinear, and the share of quantisation of all layers."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch.nn import Linear, Module, Parameter

from .nn import BitLinear, Norm, Scale
from .ops import DEFAULT_EPS, Backward

_FILTERED = "refused by the filter"
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """One torch.nn.Linear that `convert` met."""

    name: str
    """Its path in the model, "layers.0.mlp.up"."""
    converted: bool
    reason: str = ""
    """Why it was left as it is; empty if it was converted."""


def _children(module: Module, path: str = "") -> Iterator[tuple[Module, str, str, Module]]:
    """(parent, name in it, path, child) of every place below, without what lies below a Linear or BitLinear."""
    for name, child in list(module._modules.items()):  # named_children leaves out what it has met before
        if child is None:
            continue
        inner = f"{path}.{name}" if path else name
        yield module, name, inner, child
        if not isinstance(child, (Linear, BitLinear)):
            yield from _children(child, inner)


def _refusal(name: str, parent: Module, linear: Linear, accept: Callable[[str, Linear], bool] | None) -> str:
    if accept is not None and not accept(name, linear):
        return _FILTERED
    if type(linear) is not Linear:
        return f"a {type(linear).__name__}: a class derived from torch.nn.Linear, whose forward is not known"
    if isinstance(parent, torch.nn.MultiheadAttention):
        return "torch.nn.MultiheadAttention reads its weight and does not call it"
    if linear.weight.dtype not in _TYPES:
        return f"the weight is {linear.weight.dtype}, wanted float32, float16 or bfloat16"
    return ""


def bit_linear_of(linear: Linear, norm: Norm, eps: float, scale: Scale, backward: Backward = "exact",
                  stochastic_rounding: bool = False) -> BitLinear:
    """A BitLinear with the Parameters of `linear`."""
    weight = linear.weight
    # The parameters come from `linear`: nothing is allocated for them.
    layer = BitLinear(linear.in_features, linear.out_features, linear.bias is not None, norm=norm, eps=eps, scale=scale,
                      backward=backward, stochastic_rounding=stochastic_rounding, device="meta", dtype=weight.dtype)
    layer.to_empty(device=weight.device)
    if layer.norm is not None:
        layer.norm.reset_parameters()
    layer.weight = cast(Parameter, weight)
    layer.bias = cast(Parameter | None, linear.bias)
    layer.train(linear.training)
    return layer


def convert(model: Module, filter: Callable[[str, Linear], bool] | None = None, *, norm: Norm = "rms",
            eps: float = DEFAULT_EPS, scale: Scale = "tensor", backward: Backward = "exact",
            stochastic_rounding: bool = False) -> list[Conversion]:
    """Replaces the torch.nn.Linear layers of `model` by BitLinear with these options, in place, and reports each.

    `filter(name, linear)` says which (all by default). The new layers have the same Parameters, so that an optimiser
    made before goes on; their norms (norm="rms") are new, and an optimiser must be told of them. A layer that is in two
    places stays one layer. Left are classes derived from Linear, float64 weights and what MultiheadAttention holds.
    Warns where the result may not be what was meant.
    """
    if isinstance(model, Linear):
        return [Conversion("", False, "the model is itself a Linear: nothing holds it that could be changed")]
    report: list[Conversion] = []
    layers: dict[Linear, BitLinear] = {}
    for parent, name, path, child in list(_children(model)):
        if not isinstance(child, Linear):
            continue
        reason = _refusal(path, parent, child, filter)
        if not reason:
            if child not in layers:
                layers[child] = bit_linear_of(child, norm, eps, scale, backward, stochastic_rounding)
            setattr(parent, name, layers[child])
        report.append(Conversion(path, not reason, reason))
    _warn(model, report)
    return report


def _warn(model: Module, report: list[Conversion]) -> None:
    kind = type(model).__name__
    filtered = sum(conversion.reason == _FILTERED for conversion in report)
    left = [f"{c.name} ({c.reason})" for c in report if not c.converted and c.reason != _FILTERED]
    if not report and not any(isinstance(module, BitLinear) for module in model.modules()):
        warnings.warn(f"trit.convert: nothing was replaced: {kind} has no torch.nn.Linear", stacklevel=3)
    elif report and filtered == len(report):
        warnings.warn(f"trit.convert: nothing was replaced: the filter refused all {filtered} torch.nn.Linear layers of "
                      f"{kind}", stacklevel=3)
    elif left:
        more = f" and {len(left) - 4} more" if len(left) > 4 else ""
        warnings.warn(f"trit.convert: left in float: {', '.join(left[:4])}{more}", stacklevel=3)


def set_lambda(model: Module, value: float) -> int:
    """Sets the share of quantisation, 0 to 1, of every BitLinear of `model`; returns how many there are."""
    layers = [module for module in model.modules() if isinstance(module, BitLinear)]
    for layer in layers:
        layer.set_lambda(value)
    return len(layers)
