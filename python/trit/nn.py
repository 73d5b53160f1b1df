# SPDX-License-Identifier: MIT
"""Layers: `BitLinear` for training, `PackedBitLinear` for inference, `RMSNorm`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from . import ops
from ._fake import scale_shape
from .ops import DEFAULT_EPS, GROUP_LIMIT, GROUP_STEP, Backward

Norm = Literal["rms", "none"]
# "tensor", "row", or "group:G" with a multiple of 32.
Scale = str


def scale_options(scale: str) -> tuple[bool, int]:
    """(per_row, group), as the operators take them, of an option `scale`."""
    if scale in ("tensor", "row"):
        return scale == "row", 0
    kind, _, text = scale.partition(":")
    group = int(text) if kind == "group" and text.isascii() and text.isdecimal() else 0
    if not ops.is_group_size(group):
        raise ValueError(f"trit.nn.BitLinear: scale is {scale!r}, wanted 'tensor', 'row' or 'group:G', G inputs that share "
                         f"a scale, a multiple of {GROUP_STEP} and at most {GROUP_LIMIT}")
    return False, group


def _check_options(in_features: int, out_features: int, norm: str, eps: float) -> None:
    if in_features < 1 or out_features < 1 or not eps > 0:
        raise ValueError(f"trit.nn.BitLinear: wanted in_features >= 1, out_features >= 1 and eps > 0, found "
                         f"{in_features}, {out_features} and {eps}")
    if norm not in ("rms", "none"):
        raise ValueError(f"trit.nn.BitLinear: norm is {norm!r}, wanted 'rms' or 'none'")


def _parameter(module: Module, name: str) -> Any:
    """module.name. Module's own look-up costs the host 0.5 us; what is parametrised is no Parameter and goes there."""
    own = module._parameters
    return own[name] if name in own else getattr(module, name)


class RMSNorm(Module):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv:1910.07467).

    Parameter: `weight` [features], ones.
    """

    weight: Parameter

    def __init__(self, features: int, eps: float = DEFAULT_EPS, *, device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if features < 1 or not eps > 0:
            raise ValueError(f"trit.nn.RMSNorm: wanted features >= 1 and eps > 0, found {features} and {eps}")
        self.features = features
        self.eps = eps
        self.weight = Parameter(torch.empty(features, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        torch.nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, eps=self.eps)

    def extra_repr(self) -> str:
        return f"features={self.features}, eps={self.eps}"


class BitLinear(Module):
    """The ternary linear layer of BitNet b1.58 (arXiv:2402.17764), in the place of torch.nn.Linear.

    RMSNorm, int8 activations with a scale per token, weights in {-1, 0, +1} with the scale mean |W|, straight-through
    gradients. x [..., in_features] of float32, bfloat16 or float16 -> [..., out_features] of the same type, under
    autocast of the autocast type. The bits of the result are those of docs/numerics.md on every machine.

    Parameters, with the keys of the C++ module: `weight` [out_features, in_features], `bias` [out_features] or None,
    `norm.weight` [in_features] with norm="rms". A torch.nn.Linear's state dict loads into it, and leaves the norm as it
    is. The weight is a float Parameter, so optimisers, DDP, FSDP2, EMA and parametrisations need no special case; it is
    ternarised at each call, and `trit.freeze` keeps the ternary form for inference.

    `scale`: one weight scale ("tensor"), one per output row ("row"), or one for each group of G inputs of a row
    ("group:128"; a multiple of 32). `lambda_` is the share of quantisation for a warm-up: below 1 the layer computes
    x + lambda (quant(x) - x) of both operands with a float product (set_lambda).

    `backward`: which products of the backward take dY in int8 (docs/training.md): none ("exact"), that of dX
    ("int8_input"), or both ("int8_all"). They are rounded to nearest, or with `stochastic_rounding` at random, right on
    average, with torch's generator of the device. Group scales take "exact" alone: ValueError.
    """

    weight: Parameter
    bias: Parameter | None
    norm: RMSNorm | None
    _lambda: Tensor
    # What layers have that an older version pickled.
    _backward: Backward = "exact"
    stochastic_rounding: bool = False

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, norm: Norm = "rms",
                 eps: float = DEFAULT_EPS, scale: Scale = "tensor", lambda_: float = 1.0, backward: Backward = "exact",
                 stochastic_rounding: bool = False, device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__()
        _check_options(in_features, out_features, norm, eps)
        self.in_features = in_features
        self.out_features = out_features
        self.eps = eps
        self.scale = scale
        self.backward = backward
        self.stochastic_rounding = stochastic_rounding
        self.weight = Parameter(torch.empty((out_features, in_features), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(torch.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.norm = RMSNorm(in_features, eps, device=device, dtype=dtype) if norm == "rms" else None
        # A tensor, so that a compiled model is not compiled again for each value.
        self.register_buffer("_lambda", torch.ones((), device=device), persistent=False)
        self.set_lambda(lambda_)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch.nn.Linear: weight and bias uniform in +-1 / sqrt(in_features)."""
        torch.nn.init.kaiming_uniform_(self.weight, math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            torch.nn.init.uniform_(self.bias, -bound, bound)
        if self.norm is not None:
            self.norm.reset_parameters()

    @property
    def scale(self) -> Scale:
        return self._scale

    @scale.setter
    def scale(self, scale: Scale) -> None:
        per_row, group = scale_options(scale)
        ops.check_backward(self._backward, group)
        self._per_row, self.group = per_row, group
        self._scale = scale

    @property
    def backward(self) -> Backward:
        return self._backward

    @backward.setter
    def backward(self, backward: Backward) -> None:
        ops.check_backward(backward, self.group)
        self._backward = backward

    def __setstate__(self, state: dict[str, Any]) -> None:
        scale = state.pop("scale", None)  # pickled by a version before group scales
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if scale is not None:
            self.scale = scale

    @property
    def lambda_(self) -> float:
        return self._lambda_value

    def set_lambda(self, value: float) -> None:
        """Sets the share of quantisation, 0 to 1. At 1 the integer kernels run."""
        if not 0 <= value <= 1:
            raise ValueError(f"trit.nn.BitLinear: lambda is {value}, wanted 0 to 1")
        self._lambda_value = float(value)
        self._warms_up = value < 1
        with torch.no_grad():
            self._lambda.fill_(value)

    def forward(self, x: Tensor) -> Tensor:
        if self._warms_up:
            return self._warm_up(x)
        norm = self._modules.get("norm")
        return ops.layer(x, _parameter(self, "weight"), _parameter(self, "bias"),
                         None if norm is None else _parameter(norm, "weight"), norm is not None, self.eps, self._per_row,
                         self.group, self._backward, self.stochastic_rounding)

    def _warm_up(self, x: Tensor) -> Tensor:
        norm = self.norm
        inputs = x if norm is None else norm(x)
        with torch.no_grad():
            quantised = ops.norm_quant(x.reshape(-1, self.in_features), None if norm is None else norm.weight,
                                       rms=norm is not None, eps=self.eps)
            q = quantised.q[:, : self.in_features].float() * quantised.scale.unsqueeze(1)
            weight_scale = ops.absmean(self.weight, per_row=self._per_row, group=self.group)
            codes = ops.ternarize_pack(self.weight, weight_scale, self.group)
            t = ops.dequantize(codes, weight_scale, self.in_features, self.weight.dtype, self.group)
        inputs = self._blend(inputs, q.reshape(x.shape).to(inputs.dtype))
        return torch.nn.functional.linear(inputs, self._blend(self.weight, t), self.bias)

    def _blend(self, value: Tensor, quantised: Tensor) -> Tensor:
        """The value of the blend, the gradient of `value`."""
        return value + ((quantised - value) * self._lambda.to(value.dtype)).detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # .to(torch.bfloat16) rounds every floating buffer, this one too.
        self._lambda = torch.full_like(self._lambda, self._lambda_value, dtype=torch.float32)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A torch.nn.Linear's state dict has no norm: this layer's own stays.
        if self.norm is not None and prefix + "weight" in state_dict:
            state_dict.setdefault(prefix + "norm.weight", self.norm.weight.detach())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        text = (f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
                f"norm={'none' if self.norm is None else 'rms'}, eps={self.eps}, scale={self.scale}")
        if self._backward != "exact":
            text += f", backward={self._backward}" + (", stochastic_rounding" if self.stochastic_rounding else "")
        return text + (f", lambda={self._lambda_value}" if self._warms_up else "")


class PackedBitLinear(Module):
    """A BitLinear for inference: the weight in 2 bits, prepared once for this device's kernels.

    The same bits as the BitLinear that it was made from. Its state dict is the stored form (docs/format.md): `weight`
    uint8 [out_features, ceil(in_features / 4)], `weight_scale` float32 [1] or [out_features], with scale="group:G"
    [out_features, ceil(in_features / G)], and `bias` and `norm.weight` in float32. The prepared weight is no part of it, and
    is made again by .to(device) and loading.
    """

    weight: Tensor
    weight_scale: Tensor
    prepared: Tensor
    bias: Tensor | None
    norm: RMSNorm | None
    group: int = 0  # inputs that share a weight scale; 0 without group scales

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, norm: Norm = "rms",
                 eps: float = DEFAULT_EPS, scale: Scale = "tensor", device: torch.device | str | None = None) -> None:
        super().__init__()
        _check_options(in_features, out_features, norm, eps)
        self.in_features = in_features
        self.out_features = out_features
        self.eps = eps
        per_row, self.group = scale_options(scale)
        codes = torch.zeros((out_features, (in_features + 3) // 4), dtype=torch.uint8, device=device)
        scales = torch.ones(scale_shape(out_features, in_features, per_row, self.group), device=device,
                            dtype=torch.float32)
        self.register_buffer("weight", codes)
        self.register_buffer("weight_scale", scales)
        self.register_buffer("bias", torch.zeros(out_features, device=device, dtype=torch.float32) if bias else None)
        norm_layer = RMSNorm(in_features, eps, device=device, dtype=torch.float32).requires_grad_(False)
        self.register_module("norm", norm_layer if norm == "rms" else None)
        self._prepare()

    @property
    def scale(self) -> Scale:
        if self.group:
            return f"group:{self.group}"
        return "tensor" if self.weight_scale.numel() == 1 else "row"

    def _prepare(self) -> None:
        # A buffer, so that CUDA graphs know that it stays where it is; not persistent, so that nothing saves it.
        scale = self.weight_scale if self.group else None
        self.register_buffer("prepared", ops.prepare(self.weight, self.in_features, scale, self.group), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Module's own look-up of an attribute costs the host 0.3 us, a typed call of the operator 1 us.
        buffers, norm = self._buffers, self._modules["norm"]
        call = ops._prepared if ops._is_compiling() else ops._prepared_now
        result: Tensor = call(ops.autocast(x), buffers["prepared"], buffers["weight_scale"], self.out_features,
                              self.in_features, buffers["bias"], None if norm is None else norm._parameters["weight"],
                              norm is not None, self.eps, self.group)
        return result

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        del self._buffers["prepared"]  # another device has another layout
        # Scales, bias and norm are float32 whatever type the rest of the model gets.
        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        self._prepare()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        scale = state_dict.get(prefix + "weight_scale")
        if scale is not None and not self.group and scale.shape in ((1,), (self.out_features,)):
            self.weight_scale = self.weight_scale.new_ones(scale.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
        ops.check_stored(self.weight, self.weight_scale, self.in_features, prefix + "weight", self.group)
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_buffers"] = {name: buffer for name, buffer in self._buffers.items() if name != "prepared"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
                f"norm={'none' if self.norm is None else 'rms'}, eps={self.eps}, scale={self.scale}")
