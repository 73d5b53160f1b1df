# SPDX-License-Identifier: MIT
"""The operators: typed calls of `torch.ops.trit_stable`, differentiable where that has a meaning.

M tokens, N = out_features, K = in_features. A weight is a uint8 tensor in one of two forms:

* packed: `codes` [N, ceil(K / 4)] and `weight_scale` float32 [1] or [N], or with a `group` of inputs that share one
  [N, ceil(K / group)]: the form of files (docs/format.md);
* prepared: the kernels' own layout of the codes on one device, opaque bytes that `prepare` makes. They are valid for
  this machine only and are never saved.

`bit_linear` and `rms_norm` have gradients; the other operators are their parts, and have none. The bits of every result
are defined in docs/numerics.md and agree with those of the C++ library. Wrong shapes, types and devices raise
RuntimeError, which says what was found and what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _fake  # registers shapes

DEFAULT_EPS = 1e-6
"""The eps of an RMSNorm where nothing else is said."""
GROUP_STEP = 32
"""Groups of inputs that share a weight scale are multiples of it."""
GROUP_LIMIT = 1 << 30
"""No group is larger: files with larger ones are refused."""
Backward = Literal["exact", "int8_input", "int8_all"]
"""Which products of a layer's backward take their gradient in int8 (docs/training.md)."""


def is_group_size(inputs: int) -> bool:
    """Whether so many inputs can share a weight scale."""
    return GROUP_STEP <= inputs <= GROUP_LIMIT and inputs % GROUP_STEP == 0


def check_backward(backward: str, group: int) -> None:
    """Raises ValueError for an unknown `backward`, and for gradients in int8 with group scales."""
    if backward not in ("exact", "int8_input", "int8_all"):
        raise ValueError(f"trit.nn.BitLinear: backward is {backward!r}, wanted 'exact', 'int8_input' or 'int8_all'")
    if group and backward != "exact":
        raise ValueError(f"trit.nn.BitLinear: backward is {backward!r} with weight scales for groups of {group} inputs, wanted "
                         "'exact', or one scale per tensor or row")


_ops = torch.ops.trit_stable
_train = _ops.bit_linear_train.default
_backward = _ops.bit_linear_backward.default
_backward_int8 = _ops.bit_linear_backward_int8.default
_prepared = _ops.bit_linear_prepared.default
_rms_norm = _ops.rms_norm.default
_rms_norm_backward = _ops.rms_norm_backward.default
# What an overload calls. OpOverload.__call__ is a Python function around it, half a microsecond; Dynamo knows that alone.
_train_now, _backward_now, _prepared_now = _train._op, _backward._op, _prepared._op
# Called only inside an autograd Function. torch's own fallback for operators without autograd looks at every argument;
# without it a direct call has no gradient and no warning.
_library = torch.library.Library("trit_stable", "FRAGMENT")
for _name in ("bit_linear_train", "bit_linear_backward", "bit_linear_backward_int8"):
    _library.impl(_name, torch.library.fallthrough_kernel, "Autograd")
_is_compiling = torch.compiler.is_compiling
# One question for all devices: x.device.type costs as much as a layer's arithmetic.
_any_autocast = torch._C._is_any_autocast_enabled
_in_functorch = torch._C._are_functorch_transforms_active


class Quantized(NamedTuple):
    """Activations as a product takes them: x is about q * scale."""

    q: Tensor
    """int8 [M, K rounded up to 4, on a GPU to 16], the padding zero."""
    scale: Tensor
    """float32 [M], s; NaN for a row with NaN or infinities."""
    rstd: Tensor
    """float32 [M], 1 / sqrt(mean(x^2) + eps), or ones without a norm."""
    q_sum: Tensor
    """int32 [M], the sum of each row of q."""


def norm_quant(x: Tensor, norm_weight: Tensor | None = None, *, rms: bool = True, eps: float = DEFAULT_EPS) -> Quantized:
    """RMSNorm (`rms`) and int8 absmax quantisation of each row of x [M, K] (float32, bfloat16 or float16).

    `norm_weight` [K] or None for ones. BitNet b1.58, arXiv:2402.17764.
    """
    return Quantized(*_ops.norm_quant(x, norm_weight, rms, eps))


def absmean(weight: Tensor, *, per_row: bool = False, group: int = 0) -> Tensor:
    """max(mean |W|, 1e-5) of weight [N, K]: float32 [1], [N] with `per_row`, or [N, ceil(K / group)].

    `group`, here and below: inputs of a row that share a scale, a multiple of 32; 0 for none.
    """
    return cast(Tensor, _ops.absmean(weight, per_row, group))


def abs_sums(weight: Tensor) -> Tensor:
    """The sum of |W| of each row of weight [N, K], float32 [N]: absmean's first half, where rows are spread out."""
    return cast(Tensor, _ops.abs_sums(weight))


def absmean_of_sums(sums: Tensor, in_features: int) -> Tensor:
    """absmean of a weight [N, in_features], float32 [1], from the sums [N] of all of its rows: the same bits."""
    return cast(Tensor, _ops.absmean_of_sums(sums, in_features))


def ternarize_pack(weight: Tensor, weight_scale: Tensor, group: int = 0) -> Tensor:
    """clamp(round(W / weight_scale), -1, 1) of weight [N, K] as codes, uint8 [N, ceil(K / 4)]."""
    return cast(Tensor, _ops.ternarize_pack(weight, weight_scale, group))


def dequantize(codes: Tensor, weight_scale: Tensor, in_features: int, dtype: torch.dtype = torch.float32,
               group: int = 0) -> Tensor:
    """t * weight_scale, [N, K] of `dtype`."""
    return cast(Tensor, _ops.dequantize(codes, weight_scale, in_features, dtype, group))


def prepare(codes: Tensor, in_features: int, weight_scale: Tensor | None = None, group: int = 0) -> Tensor:
    """The layout of this device's kernels, uint8 [bytes], group scales included: `weight_scale` is read for these."""
    return cast(Tensor, _ops.prepare(codes, in_features, weight_scale, group))


def pack_weight(weight: Tensor, *, per_row: bool = False, group: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """absmean, ternarize_pack and prepare of weight [N, K], on a GPU in one launch: codes, weight_scale, prepared."""
    codes, weight_scale, prepared = _ops.pack_weight(weight, per_row, group)
    return codes, weight_scale, prepared


def packed_linear(x: Quantized, codes: Tensor, weight_scale: Tensor, in_features: int, bias: Tensor | None = None,
                  dtype: torch.dtype = torch.float32, group: int = 0) -> Tensor:
    """((q · tᵀ) * s) * weight_scale + bias, [M, N] of `dtype`, with group scales as docs/numerics.md adds them up.

    Prepares the codes at each call.
    """
    return cast(Tensor, _ops.packed_linear(x.q, x.scale, x.q_sum, codes, weight_scale, in_features, bias, dtype, group))


def prepared_linear(x: Quantized, prepared: Tensor, weight_scale: Tensor, out_features: int, in_features: int,
                    bias: Tensor | None = None, dtype: torch.dtype = torch.float32, group: int = 0) -> Tensor:
    """The same from a prepared weight, of the same group."""
    return cast(Tensor, _ops.prepared_linear(x.q, x.scale, x.q_sum, prepared, weight_scale, out_features, in_features,
                                             bias, dtype, group))


def bit_linear_prepared(x: Tensor, prepared: Tensor, weight_scale: Tensor, out_features: int, in_features: int,
                        bias: Tensor | None = None, norm_weight: Tensor | None = None, *, rms: bool = True,
                        eps: float = DEFAULT_EPS, group: int = 0) -> Tensor:
    """The whole layer for inference: norm_quant and prepared_linear of x [..., K]; [..., N] of x's type."""
    return cast(Tensor, _prepared(x, prepared, weight_scale, out_features, in_features, bias, norm_weight, rms, eps,
                                  group))


def linear_backward_input(grad: Tensor, codes: Tensor, weight_scale: Tensor, in_features: int, group: int = 0) -> Tensor:
    """dX [M, K] = grad [M, N] · (weight_scale t), in grad's type."""
    return cast(Tensor, _ops.linear_backward_input(grad, codes, weight_scale, in_features, group))


def linear_backward_weight(grad: Tensor, q: Tensor, scale: Tensor, in_features: int,
                           dtype: torch.dtype | None = None) -> Tensor:
    """dW [N, K] = gradᵀ · (scale q), in `dtype` or grad's type."""
    return cast(Tensor, _ops.linear_backward_weight(grad, q, scale, in_features, dtype or grad.dtype))


def dequantize_tokens(q: Tensor, scale: Tensor, in_features: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """s q, [M, in_features] of `dtype`, each value rounded once."""
    return cast(Tensor, _ops.dequantize_tokens(q, scale, in_features, dtype))


def linear_backward_weight_float(grad: Tensor, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """linear_backward_weight from x = s q [M, K] in grad's type: dW [N, K] = gradᵀ · x, in `dtype` or grad's type."""
    return cast(Tensor, _ops.linear_backward_weight_float(grad, x, dtype or grad.dtype))


def linear_backward_int8(grad: Tensor, q: Tensor, scale: Tensor, codes: Tensor, weight_scale: Tensor, in_features: int,
                         weight_dtype: torch.dtype = torch.float32, *, wants_x: bool = True, wants_weight: bool = True,
                         rounding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """dX [M, K] in grad's type and dW [N, K] of `weight_dtype`, from gradients in int8 (include/trit/gradient.h).

    grad [M, N], q and scale of the forward; weight_scale [1] or [N], not of groups. dX takes dY with a scale per token, dW
    s dY with a scale per output. `rounding` is int64 [2] on grad's device: seed and offset of stochastic rounding; None
    rounds to nearest. What is not wanted is [0]. A NaN or an infinity in grad makes its token's dX and its output's dW NaN.
    """
    grad_x, grad_weight = _ops.linear_backward_int8(grad, q, scale, codes, weight_scale, in_features, weight_dtype, wants_x,
                                                    wants_weight, rounding)
    return grad_x, grad_weight


def random_rounding(device: torch.device) -> Tensor:
    """Seed and offset of stochastic rounding, from torch's generator of `device`: int64 [2]."""
    return torch.randint(0, (1 << 63) - 1, (2,), dtype=torch.int64, device=device)


def check_stored(codes: Tensor, weight_scale: Tensor, in_features: int, name: str, group: int = 0) -> None:
    """Raises RuntimeError, naming `name`, row and column, unless codes and scales are valid in the stored form."""
    if codes.device.type == "meta":
        return
    _ops.check_stored(codes.cpu(), weight_scale.cpu(), in_features, name, group)


def crc32c(data: Tensor, crc: int = 0) -> int:
    """CRC-32C of the bytes of `data` (on the CPU, contiguous), continued from `crc`."""
    return cast(int, _ops.crc32c(data, crc))


Gradients = tuple[Tensor | None, ...]


def _differentiate_once(gradients: Callable[[Any, Tensor], Gradients], ctx: Any, grad: Tensor) -> Gradients:
    """Gradients that are no constants for a second backward, which is an error. Under create_graph alone: the
    decorator costs the host 2 us."""
    if torch.is_grad_enabled():
        return once_differentiable(gradients)(ctx, grad)
    return gradients(ctx, grad)


def _bit_linear_gradients(ctx: Any, grad: Tensor) -> Gradients:
    x, norm_weight, q, scales, codes, weight_scale = ctx.saved_tensors
    in_features, weight_dtype, bias_dtype, rms, group, products, stochastic_rounding = ctx.layer
    wants_x, wants_weight, wants_bias, wants_norm, *_ = ctx.needs_input_grad
    if products == "exact":
        backward = _backward if _is_compiling() else _backward_now
        grad_x, grad_weight, grad_norm = backward(grad, x, norm_weight, q, scales, codes, weight_scale, in_features,
                                                  weight_dtype, rms, wants_x, wants_weight, wants_norm, group)
    else:
        rounding = random_rounding(grad.device) if stochastic_rounding else None
        grad_x, grad_weight, grad_norm = _backward_int8(grad, x, norm_weight, q, scales, codes, weight_scale, in_features,
                                                        weight_dtype, rms, wants_x, wants_weight, wants_norm,
                                                        products == "int8_all", rounding)
    grad_bias = None
    if wants_bias:
        rows = grad if grad.dim() == 2 else grad.reshape(-1, grad.shape[-1])
        grad_bias = rows.sum(0, dtype=bias_dtype)
    return (grad_x if wants_x else None, grad_weight if wants_weight else None, grad_bias,
            grad_norm if wants_norm and rms else None, None, None, None, None, None, None)


def _rms_norm_gradients(ctx: Any, grad: Tensor) -> Gradients:
    x, weight, rstd = ctx.saved_tensors
    wants_x, wants_weight, _ = ctx.needs_input_grad
    grad_x, grad_weight = _rms_norm_backward(grad, x, rstd, weight, wants_x, wants_weight)
    return grad_x if wants_x else None, grad_weight if wants_weight else None, None


# torch.autograd.Function and not torch.library.register_autograd: that runs Python at each call of the operator, with
# and without gradients.
class _BitLinear(torch.autograd.Function):
    """Straight-through: round and clamp have gradient one, and the scales are constant.

    Saved are q (a byte an activation), s and r, the packed weight (2 bits a weight) and, for the norm, x by reference.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor | None, rms: bool,
                eps: float, per_row: bool, group: int, products: Backward, stochastic_rounding: bool) -> Tensor:
        train = _train if _is_compiling() else _train_now
        y, q, scales, codes, weight_scale = train(x, weight, bias, norm_weight, rms, eps, per_row, group)
        ctx.save_for_backward(x if rms else None, norm_weight if rms else None, q, scales, codes, weight_scale)
        ctx.layer = (weight.shape[1], weight.dtype, None if bias is None else bias.dtype, rms, group, products,
                     stochastic_rounding)
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _differentiate_once(_bit_linear_gradients, ctx, grad)


class _BitLinearInParts(torch.autograd.Function):
    """_BitLinear for torch.compile, which computes equal calls once: layers that read the same x without norms of their own,
    as q, k and v of a transformer, quantise it once, save it once and dequantise it once for dW. Which parts run is
    decided as in src/torch_stable/layer_backward.h."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor | None, rms: bool,
                eps: float, per_row: bool, group: int, products: Backward, stochastic_rounding: bool) -> Tensor:
        out_features, in_features = weight.shape
        rows = x.reshape(-1, in_features)
        q, scale, rstd, q_sum = _ops.norm_quant(rows, norm_weight, rms, eps, x.device.type != "cuda")
        codes, weight_scale, prepared = _ops.pack_weight(weight, per_row, group)
        y = _ops.prepared_linear(q, scale, q_sum, prepared, weight_scale, out_features, in_features, bias, x.dtype, group)
        ctx.save_for_backward(rows if rms else None, norm_weight if rms else None, q, scale, rstd, codes, weight_scale)
        ctx.layer = (x.shape, weight.dtype, None if bias is None else bias.dtype, rms, group, products, stochastic_rounding)
        return cast(Tensor, y.reshape(*x.shape[:-1], out_features))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, norm_weight, q, scale, rstd, codes, weight_scale = ctx.saved_tensors
        x_shape, weight_dtype, bias_dtype, rms, group, products, stochastic_rounding = ctx.layer
        wants_x, wants_weight, wants_bias, wants_norm, *_ = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        wants_input = wants_x or (rms and wants_norm)
        in_features = x_shape[-1]
        grad_x = grad_weight = grad_norm = None
        int8_input, int8_weight = wants_input and products != "exact", wants_weight and products == "int8_all"
        if wants_weight and not int8_weight:
            if grad.device.type == "cuda":
                values = _ops.dequantize_tokens(q, scale, in_features, grad.dtype)
                grad_weight = _ops.linear_backward_weight_float(rows, values, weight_dtype)
            else:
                grad_weight = _ops.linear_backward_weight(rows, q, scale, in_features, weight_dtype)
        if int8_input or int8_weight:
            rounding = random_rounding(grad.device) if stochastic_rounding else None
            inputs, weights = _ops.linear_backward_int8(rows, q, scale, codes, weight_scale, in_features, weight_dtype,
                                                        int8_input, int8_weight, rounding)
            grad_x, grad_weight = inputs if int8_input else None, weights if int8_weight else grad_weight
        elif wants_input:
            grad_x = _ops.linear_backward_input(rows, codes, weight_scale, in_features, group)
        if wants_input and rms:
            grad_x, grad_norm = _rms_norm_backward(grad_x, x, rstd, norm_weight, wants_x, wants_norm)
        return (grad_x.reshape(x_shape) if grad_x is not None and wants_x else None, grad_weight,
                rows.sum(0, dtype=bias_dtype) if wants_bias else None, grad_norm if wants_norm and rms else None,
                None, None, None, None, None, None)


# Function.apply without its Python part, 2.5 us, which is there for functorch.
_bit_linear_now = super(torch.autograd.Function, _BitLinear).apply


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        y, rstd = _rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, rstd)
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _differentiate_once(_rms_norm_gradients, ctx, grad)


def autocast(x: Tensor) -> Tensor:
    """x in the autocast type, where autocast is on for its device."""
    if not (_is_compiling() or _any_autocast()):
        return x
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


def bit_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, norm_weight: Tensor | None = None, *,
               rms: bool = True, eps: float = DEFAULT_EPS, per_row: bool = False, group: int = 0,
               backward: Backward = "exact", stochastic_rounding: bool = False) -> Tensor:
    """The ternary linear layer of BitNet b1.58 (arXiv:2402.17764) from a float weight, differentiable.

    x [..., K] -> [..., N] of x's type, under autocast of the autocast type. weight [N, K], bias [N], norm_weight [K];
    `rms` puts an RMSNorm in front, `per_row` takes a weight scale per output row, and `group` one for each group of as
    many inputs of a row (a multiple of 32). The weight is ternarised at each call; for inference prepare it once
    (`trit.freeze`). Gradients are straight-through:
    dX = dY · (beta t), dW = dYᵀ · (s q), through the norm by its Jacobian. Differentiating twice is an error. `backward`
    says which of these products take dY in int8 ("int8_input": dX; "int8_all": both), rounded to nearest, or with
    `stochastic_rounding` at random, with torch's generator of the device; group scales take "exact" alone.
    """
    if backward != "exact":
        check_backward(backward, group)
    return layer(x, weight, bias, norm_weight, rms, eps, per_row, group, backward, stochastic_rounding)


def layer(x: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor | None, rms: bool, eps: float, per_row: bool,
          group: int, backward: Backward, stochastic_rounding: bool) -> Tensor:
    """bit_linear with checked options, positional: a call with keywords costs the host more."""
    x = autocast(x)
    result: Tensor
    if not torch.is_grad_enabled():
        result = _train(x, weight, bias, norm_weight, rms, eps, per_row, group)[0]
    elif _is_compiling():
        if x.shape[-1] != weight.shape[1]:
            raise RuntimeError(f"trit::bit_linear: x must be [..., {weight.shape[1]}], found {list(x.shape)}")
        result = _BitLinearInParts.apply(x, weight, bias, norm_weight, rms, eps, per_row, group,  # type: ignore[no-untyped-call]
                                         backward, stochastic_rounding)
    elif _in_functorch():
        result = _BitLinear.apply(x, weight, bias, norm_weight, rms, eps, per_row, group,  # type: ignore[no-untyped-call]
                                  backward, stochastic_rounding)
    else:
        result = _bit_linear_now(x, weight, bias, norm_weight, rms, eps, per_row, group,  # type: ignore[no-untyped-call]
                                 backward, stochastic_rounding)
    return result


def rms_norm(x: Tensor, weight: Tensor | None = None, *, eps: float = DEFAULT_EPS) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, differentiable. weight [features] or None."""
    if torch.is_grad_enabled():
        return cast(Tensor, _RMSNorm.apply(x, weight, eps))  # type: ignore[no-untyped-call]
    return cast(Tensor, _rms_norm(x, weight, eps)[0])
