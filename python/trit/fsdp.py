# SPDX-License-Identifier: MIT
"""FSDP2 that gathers ternary weights in 2 bits instead of 16 or 32.

    trit.fsdp.gather_codes_(model)              # first, then as always:
    for block in model.layers:
        torch.distributed.fsdp.fully_shard(block)
    torch.distributed.fsdp.fully_shard(model)

The sharded parameters stay float, for the optimiser. Each rank ternarises its rows, and FSDP2 all-gathers the codes through
its extension hooks (fsdp_pre_all_gather, fsdp_post_all_gather of the sharded tensor): uint8 [N, ceil(K / 4)] and the
scales. The layers compute from these codes, and never see a float weight:

                     rows of rank r                       all ranks
    w float [N / R, K] -> sums of |w| -- all-reduce --> beta [1]           one all-reduce for all layers
                       -> codes [N / R, K / 4] -- all-gather --> codes [N, K / 4] -> BitLinear

Codes and scales have the bits that one process computes from the whole weight in float32, under every mixed precision
policy, so losses and gradients equal those of fully_shard alone without one. They are made once after each change of a
weight, not at each gather. Weights must change on all ranks alike, as optimisers change them.
"""

from __future__ import annotations

import weakref
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn import Module, Parameter
from torch.utils import _pytree as pytree

from . import ops
from .nn import BitLinear

_aten = torch.ops.aten
_stable = torch.ops.trit_stable

# What FSDP2, Module and DTensor make new shards with; the results of all other operations are plain tensors.
_KEPT = {_aten.detach.default, _aten.alias.default, _aten.clone.default, _aten.view.default, _aten.slice.Tensor,
         _aten.split.Tensor, _aten.as_strided.default, _aten.new_zeros.default, _aten.empty_like.default,
         _aten._to_copy.default, _aten._pin_memory.default}


class _Weight:
    """What is known of a layer's weight: the codes of this rank's rows, padded to the rows of the first rank."""

    def __init__(self, layer: BitLinear, group: list[_Weight]) -> None:
        self.layer = weakref.ref(layer)
        self.group = group  # of all weights of the model, this one among them
        self.out_features, self.in_features = layer.out_features, layer.in_features
        self.per_row = layer.scale == "row"
        self.version = -1  # of the rows that the codes are of
        self.codes: Tensor | None = None
        self.scale: Tensor | None = None

    def shard(self) -> Shard | None:
        """This rank's rows, while FSDP2 has the weight sharded."""
        layer = self.layer()
        weight = None if layer is None else layer.weight
        # The tensor itself: to_local() makes another one, in torch 2.15 without gradients too.
        local = weight._local_tensor if isinstance(weight, DTensor) else None
        return local if isinstance(local, Shard) else None

    def is_stale(self) -> bool:
        shard = self.shard()
        return shard is not None and (self.codes is None or self.version != shard.rows._version)

    def changed(self) -> None:
        self.codes = None


class Shard(Tensor):
    """Rows of a float weight that FSDP2 gathers as codes. A float tensor in every other respect."""

    rows: Tensor
    of: _Weight

    @staticmethod
    def __new__(cls, rows: Tensor, of: _Weight) -> Shard:
        return Tensor._make_wrapper_subclass(cls, rows.shape, strides=rows.stride(), dtype=rows.dtype, device=rows.device,
                                             requires_grad=rows.requires_grad)

    def __init__(self, rows: Tensor, of: _Weight) -> None:
        self.rows = rows
        self.of = of

    def __repr__(self) -> str:  # type: ignore[override]
        return f"trit.fsdp.Shard({self.rows})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        shards = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Shard)]
        plain, options = pytree.tree_map_only(Shard, lambda shard: shard.rows, (args, kwargs or {}))
        result = func(*plain, **options)
        if func._schema.is_mutable:
            for shard in shards:
                shard.of.changed()
            return args[0] if args and result is plain[0] else result
        if func in _KEPT:
            return pytree.tree_map_only(Tensor, lambda tensor: Shard(tensor, shards[0].of), result)
        return result

    @torch.no_grad()
    def fsdp_pre_all_gather(self, mesh: DeviceMesh) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """FSDP2's hook: what is gathered of this rank, codes and scales, as many bytes on every rank."""
        weight = self.of
        registered = weight.shard()
        if registered is not self and (registered is None or registered.device == self.device):
            raise RuntimeError("trit.fsdp: the model was copied between gather_codes_ and fully_shard; call gather_codes_ "
                               "last before fully_shard")
        if weight.is_stale():
            _refresh([other for other in weight.group if other.is_stale()], mesh, self.device)
        assert weight.codes is not None and weight.scale is not None
        if mesh.size() == 1:  # FSDP2 then takes one tensor alone
            return (weight.codes,), weight.scale
        # Each rank's part begins at a multiple of 16 bytes, the widest access of copies on a GPU. What that gains is not measured.
        padding = -(weight.codes.nbytes + weight.scale.nbytes) % 16
        return (weight.codes, weight.scale, weight.codes.new_zeros(padding)), None

    @torch.no_grad()
    def fsdp_post_all_gather(self, all_gather_outputs: tuple[Tensor, ...], metadata: Any, param_dtype: torch.dtype, *,
                             out: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """FSDP2's hook: the weight that the layer computes with, made once; it sees what later gathers bring."""
        if out is not None:
            if metadata is not None:
                assert isinstance(out, Codes)
                with torch.autograd._unsafe_preserve_version_counter(out.scale):  # type: ignore[attr-defined]
                    out.scale.copy_(metadata)
            return None
        codes = all_gather_outputs[0]
        scale = all_gather_outputs[1] if metadata is None else metadata.clone()
        count = self.of.out_features
        scale = scale[:count] if self.of.per_row else scale[:1]
        return Codes(codes[:count], scale, self.of.in_features, param_dtype), ()


class Codes(Tensor):
    """A whole weight [N, K] of which there are codes and scales only. BitLinear computes from them; other operations see
    beta t in the weight's type."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor, in_features: int, dtype: torch.dtype) -> Codes:
        return Tensor._make_wrapper_subclass(cls, torch.Size((codes.shape[0], in_features)), dtype=dtype, device=codes.device)

    def __init__(self, codes: Tensor, scale: Tensor, in_features: int, dtype: torch.dtype) -> None:
        self.codes = codes
        self.scale = scale

    def __repr__(self) -> str:  # type: ignore[override]
        return f"trit.fsdp.Codes({list(self.shape)}, {self.dtype})"

    def __tensor_flatten__(self) -> tuple[list[str], tuple[int, torch.dtype]]:
        return ["codes", "scale"], (self.shape[1], self.dtype)

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], metadata: tuple[int, torch.dtype], outer_size: Any,
                             outer_stride: Any) -> Codes:
        return Codes(inner["codes"], inner["scale"], *metadata)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func is _stable.bit_linear_train.default:
            return _forward(*args)
        if func is _stable.pack_weight.default:
            weight = args[0]
            return weight.codes, weight.scale, ops.prepare(weight.codes, weight.shape[1])
        if func in (_aten.detach.default, _aten.alias.default, _aten.as_strided.default, _aten.view.default):
            weight = args[0]
            return Codes(weight.codes, weight.scale, weight.shape[1], weight.dtype)
        if func in (_stable.absmean.default, _stable.ternarize_pack.default) or func._schema.is_mutable:
            raise RuntimeError(f"trit.fsdp: {func} of a weight that was gathered as codes. A warm-up (lambda below 1) needs "
                               "the float weight: call fully_shard without gather_codes_ for it")
        args, kwargs = pytree.tree_map_only(
            Codes, lambda weight: ops.dequantize(weight.codes, weight.scale, weight.shape[1], weight.dtype), (args, kwargs or {}))
        return func(*args, **kwargs)


def _forward(x: Tensor, weight: Codes, bias: Tensor | None, norm_weight: Tensor | None, rms: bool, eps: float,
             per_row: bool, group: int = 0) -> tuple[Tensor, ...]:
    """bit_linear_train from the codes: the same bits."""
    return (*_stable.bit_linear_train_codes(x, weight.codes, weight.scale, weight.shape[1], bias, norm_weight, rms, eps),
            weight.codes, weight.scale)


def _refresh(weights: list[_Weight], mesh: DeviceMesh, device: torch.device) -> None:
    """Codes and scales of this rank's rows of `weights`, which are the same ones on all ranks."""
    ranks, rank = mesh.size(), mesh.get_local_rank()
    parts = [-(-weight.out_features // ranks) for weight in weights]  # rows of a rank; the last ranks may have fewer
    shards = [cast(Shard, weight.shard()) for weight in weights]
    rows = [shard.rows.to(device, non_blocking=True) for shard in shards]
    # One place for each row of each weight: a rank writes its own rows' and all others' are zero, so that the sum over the
    # ranks is exact whatever its order. beta then adds the rows up in the order of docs/numerics.md.
    totals = [0 if weight.per_row else part * ranks for weight, part in zip(weights, parts)]
    sums = torch.zeros(sum(totals), device=device)
    places = sums.split(totals)
    for weight, part, own, place in zip(weights, parts, rows, places):
        if not weight.per_row and len(own):
            place[rank * part: rank * part + len(own)] = ops.abs_sums(own)
    if len(sums):
        dist.all_reduce(sums, group=mesh.get_group())
    for weight, part, shard, own, place in zip(weights, parts, shards, rows, places):
        if weight.per_row:
            scale = ops.absmean(own, per_row=True) if len(own) else own.new_empty((0,), dtype=torch.float32)
            weight.scale = _padded(scale, part)
        else:
            weight.scale = scale = ops.absmean_of_sums(place[: weight.out_features], weight.in_features)
        row_bytes = (weight.in_features + 3) // 4
        codes = ops.ternarize_pack(own, scale) if len(own) else own.new_empty((0, row_bytes), dtype=torch.uint8)
        weight.codes = _padded(codes, part)
        weight.version = shard.rows._version


def _padded(tensor: Tensor, rows: int) -> Tensor:
    return tensor if len(tensor) == rows else torch.cat([tensor, tensor.new_zeros((rows - len(tensor), *tensor.shape[1:]))])


def _plain(module: Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """State dicts hold plain tensors, as without trit.fsdp."""
    value, weight = state.get(prefix + "weight"), module.weight
    local = weight._local_tensor if isinstance(weight, DTensor) else weight
    if value is None or not isinstance(local, Shard):
        return
    if isinstance(weight, DTensor):
        state[prefix + "weight"] = DTensor.from_local(local.rows, weight.device_mesh, weight.placements, run_check=False,
                                                      shape=weight.shape, stride=weight.stride())
    else:
        state[prefix + "weight"] = local.rows


def gather_codes_(model: Module) -> int:
    """Makes fully_shard gather the weights of every BitLinear of `model` as 2-bit codes; returns how many there are.

    Call it before fully_shard, with the whole model. State dicts, optimisers and gradients stay as they are. Layers with
    group scales are left out: their weights are gathered as floats. A layer in a warm-up (lambda below 1) cannot compute
    from codes: its forward raises RuntimeError.
    """
    group: list[_Weight] = []
    layers = [module for module in model.modules() if isinstance(module, BitLinear) and not module.group]
    made: dict[Tensor, Parameter] = {}
    for layer in layers:
        weight = layer.weight
        if isinstance(weight, (DTensor, Shard, Codes)):
            raise RuntimeError("trit.fsdp.gather_codes_: a weight is sharded already; call it once, before fully_shard")
        if weight not in made:
            group.append(_Weight(layer, group))
            made[weight] = Parameter(Shard(weight.detach(), group[-1]), weight.requires_grad)
        layer.weight = made[weight]
        layer.register_state_dict_post_hook(_plain)  # type: ignore[no-untyped-call]
    return len(layers)
