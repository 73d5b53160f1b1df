# SPDX-License-Identifier: MIT
"""What torch.compile and torch.export know of each operator: shapes, types and strides of its results.

Also what an operator does on a GPU where this build has no GPU half: an error that says how to get it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from ._library import INFO

_OPERATORS: list[str] = []


def _fake(function: Callable[..., Any]) -> Callable[..., Any]:
    name = function.__name__
    _OPERATORS.append(name)
    torch.library.register_fake(f"trit_stable::{name}")(function)
    return function


def q_width(in_features: int, device: torch.device) -> int:
    """Bytes of a row of q: in_features rounded up to 16 on a GPU, to 4 elsewhere."""
    step = 16 if device.type == "cuda" else 4
    return (in_features + step - 1) // step * step


def groups_of(in_features: int, group: int) -> int:
    return (in_features + group - 1) // group


def scale_shape(out_features: int, in_features: int, per_row: bool, group: int) -> tuple[int, ...]:
    """The shape of a weight's scales."""
    if group:
        return out_features, groups_of(in_features, group)
    return (out_features if per_row else 1,)


def prepared_size(out_features: int, in_features: int, device: torch.device, group: int = 0) -> int:
    """Bytes of a prepared weight (trit/prepared.h, trit/cuda.h)."""
    if device.type == "cuda":
        rows = (out_features + 63) // 64 * 64
        size = rows * ((in_features + 127) // 128 * 128) // 4
        return size + rows * groups_of(in_features, group) * 4 if group else size
    panels = (out_features + INFO.panel_rows - 1) // INFO.panel_rows
    size = 64 + panels * ((in_features + 3) // 4) * INFO.panel_bytes
    if group:
        size = (size + 63) // 64 * 64 + panels * INFO.panel_rows * groups_of(in_features, group) * 4
    return size


def _rows(x: Tensor) -> int:
    rows = 1
    for size in x.shape[:-1]:
        rows *= size
    return rows


def _quantised(x: Tensor, in_features: int) -> tuple[Tensor, Tensor]:
    """q, and the scales [2, M], s and r, of what is saved for a backward."""
    tokens = _rows(x)
    return (x.new_empty((tokens, q_width(in_features, x.device)), dtype=torch.int8),
            x.new_empty((2, tokens), dtype=torch.float32))


@_fake
def norm_quant(x: Tensor, norm_weight: Tensor | None, rms: bool, eps: float,
               wants_sum: bool = True) -> tuple[Tensor, ...]:
    torch._check(x.dim() == 2, lambda: f"trit::norm_quant: x must be [tokens, in_features], found {list(x.shape)}")
    tokens = x.shape[0]
    q = x.new_empty((tokens, q_width(x.shape[1], x.device)), dtype=torch.int8)
    scale = x.new_empty((tokens,), dtype=torch.float32)
    has_sum = wants_sum or x.device.type != "cuda"
    return q, scale, torch.empty_like(scale), x.new_empty((tokens if has_sum else 0,), dtype=torch.int32)


@_fake
def absmean(weight: Tensor, per_row: bool, group: int = 0) -> Tensor:
    return weight.new_empty(scale_shape(weight.shape[0], weight.shape[1], per_row, group), dtype=torch.float32)


@_fake
def abs_sums(weight: Tensor) -> Tensor:
    return weight.new_empty((weight.shape[0],), dtype=torch.float32)


@_fake
def absmean_of_sums(sums: Tensor, in_features: int) -> Tensor:
    return sums.new_empty((1,))


@_fake
def ternarize_pack(weight: Tensor, scale: Tensor, group: int = 0) -> Tensor:
    return weight.new_empty((weight.shape[0], (weight.shape[1] + 3) // 4), dtype=torch.uint8)


@_fake
def dequantize(codes: Tensor, scale: Tensor, in_features: int, dtype: torch.dtype, group: int = 0) -> Tensor:
    return codes.new_empty((codes.shape[0], in_features), dtype=dtype)


@_fake
def prepare(codes: Tensor, in_features: int, weight_scale: Tensor | None = None, group: int = 0) -> Tensor:
    return codes.new_empty((prepared_size(codes.shape[0], in_features, codes.device, group),))


@_fake
def pack_weight(weight: Tensor, per_row: bool, group: int = 0) -> tuple[Tensor, ...]:
    out_features, in_features = weight.shape
    return (weight.new_empty((out_features, (in_features + 3) // 4), dtype=torch.uint8),
            weight.new_empty(scale_shape(out_features, in_features, per_row, group), dtype=torch.float32),
            weight.new_empty((prepared_size(out_features, in_features, weight.device, group),), dtype=torch.uint8))


@_fake
def dequantize_tokens(q: Tensor, scale: Tensor, in_features: int, dtype: torch.dtype) -> Tensor:
    return q.new_empty((q.shape[0], in_features), dtype=dtype)


@_fake
def packed_linear(q: Tensor, scale: Tensor, q_sum: Tensor, codes: Tensor, weight_scale: Tensor, in_features: int,
                  bias: Tensor | None, dtype: torch.dtype, group: int = 0) -> Tensor:
    return q.new_empty((q.shape[0], codes.shape[0]), dtype=dtype)


@_fake
def prepared_linear(q: Tensor, scale: Tensor, q_sum: Tensor, prepared: Tensor, weight_scale: Tensor,
                    out_features: int, in_features: int, bias: Tensor | None, dtype: torch.dtype,
                    group: int = 0) -> Tensor:
    return q.new_empty((q.shape[0], out_features), dtype=dtype)


@_fake
def bit_linear_prepared(x: Tensor, prepared: Tensor, weight_scale: Tensor, out_features: int, in_features: int,
                        bias: Tensor | None, norm_weight: Tensor | None, rms: bool, eps: float,
                        group: int = 0) -> Tensor:
    torch._check(x.shape[-1] == in_features,
                 lambda: f"trit::bit_linear: x must be [..., {in_features}], found {list(x.shape)}")
    return x.new_empty((*x.shape[:-1], out_features))


@_fake
def bit_linear_train(x: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor | None, rms: bool, eps: float,
                     per_row: bool, group: int = 0) -> tuple[Tensor, ...]:
    torch._check(x.shape[-1] == weight.shape[1],
                 lambda: f"trit::bit_linear: x must be [..., {weight.shape[1]}], found {list(x.shape)}")
    out_features, in_features = weight.shape
    return (x.new_empty((*x.shape[:-1], out_features)), *_quantised(x, in_features),
            weight.new_empty((out_features, (in_features + 3) // 4), dtype=torch.uint8),
            weight.new_empty(scale_shape(out_features, in_features, per_row, group), dtype=torch.float32))


@_fake
def bit_linear_train_codes(x: Tensor, codes: Tensor, weight_scale: Tensor, in_features: int, bias: Tensor | None,
                           norm_weight: Tensor | None, rms: bool, eps: float, group: int = 0) -> tuple[Tensor, ...]:
    torch._check(x.shape[-1] == in_features,
                 lambda: f"trit::bit_linear: x must be [..., {in_features}], found {list(x.shape)}")
    return x.new_empty((*x.shape[:-1], codes.shape[0])), *_quantised(x, in_features)


def _layer_gradients(grad: Tensor, x: Tensor | None, norm_weight: Tensor | None, in_features: int,
                     weight_dtype: torch.dtype, rms: bool, wants_x: bool, wants_weight: bool,
                     wants_norm_weight: bool) -> tuple[Tensor, ...]:
    norm_like = grad if norm_weight is None else norm_weight
    wants_norm_weight = wants_norm_weight and rms and norm_weight is not None
    inputs = (*grad.shape[:-1], in_features) if wants_x else (0,)
    like = x if rms and x is not None and (wants_x or wants_norm_weight) else grad
    return (like.new_empty(inputs),
            grad.new_empty((grad.shape[-1], in_features), dtype=weight_dtype) if wants_weight else grad.new_empty((0,)),
            norm_like.new_empty((in_features,) if wants_norm_weight else (0,)))


@_fake
def bit_linear_backward(grad: Tensor, x: Tensor | None, norm_weight: Tensor | None, q: Tensor, scales: Tensor,
                        codes: Tensor, weight_scale: Tensor, in_features: int, weight_dtype: torch.dtype, rms: bool,
                        wants_x: bool, wants_weight: bool, wants_norm_weight: bool, group: int = 0) -> tuple[Tensor, ...]:
    return _layer_gradients(grad, x, norm_weight, in_features, weight_dtype, rms, wants_x, wants_weight, wants_norm_weight)


@_fake
def bit_linear_backward_int8(grad: Tensor, x: Tensor | None, norm_weight: Tensor | None, q: Tensor, scales: Tensor,
                             codes: Tensor, weight_scale: Tensor, in_features: int, weight_dtype: torch.dtype,
                             rms: bool, wants_x: bool, wants_weight: bool, wants_norm_weight: bool, int8_weight: bool,
                             rounding: Tensor | None = None) -> tuple[Tensor, ...]:
    return _layer_gradients(grad, x, norm_weight, in_features, weight_dtype, rms, wants_x, wants_weight, wants_norm_weight)


@_fake
def linear_backward_int8(grad: Tensor, q: Tensor, scale: Tensor, codes: Tensor, weight_scale: Tensor, in_features: int,
                         weight_dtype: torch.dtype, wants_x: bool, wants_weight: bool,
                         rounding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return (grad.new_empty((grad.shape[0], in_features) if wants_x else (0,)),
            grad.new_empty((grad.shape[1], in_features), dtype=weight_dtype) if wants_weight else grad.new_empty((0,)))


@_fake
def linear_backward_input(grad: Tensor, codes: Tensor, weight_scale: Tensor, in_features: int,
                          group: int = 0) -> Tensor:
    return grad.new_empty((grad.shape[0], in_features))


@_fake
def linear_backward_weight(grad: Tensor, q: Tensor, scale: Tensor, in_features: int, dtype: torch.dtype) -> Tensor:
    return grad.new_empty((grad.shape[1], in_features), dtype=dtype)


@_fake
def linear_backward_weight_float(grad: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    return grad.new_empty((grad.shape[1], x.shape[1]), dtype=dtype)


@_fake
def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:-1], dtype=torch.float32)


@_fake
def rms_norm_backward(grad: Tensor, x: Tensor, rstd: Tensor, weight: Tensor | None, wants_x: bool,
                      wants_weight: bool) -> tuple[Tensor, Tensor]:
    like = x if weight is None else weight
    return (x.new_empty(x.shape if wants_x else (0,)),
            like.new_empty((x.shape[-1],) if wants_weight and weight is not None else (0,)))


def _no_gpu_half(*args: Any, **kwargs: Any) -> NoReturn:
    raise RuntimeError(
        "trit: a tensor on a GPU, and this build of trit has no GPU half. Wanted: a wheel with it, or `pip install .` "
        "where nvcc 12.4 or newer is found (CUDACXX, PATH or /usr/local/cuda/bin)"
    )


if not INFO.cuda:
    for _name in _OPERATORS:
        torch.library.impl(f"trit_stable::{_name}", "cuda")(_no_gpu_half)
