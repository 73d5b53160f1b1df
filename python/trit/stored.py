# SPDX-License-Identifier: MIT
"""The stored form (docs/format.md): a model's tensors with 2 bits per ternary weight, in a safetensors file.

    trit.save(model, "model.safetensors")            # the `trit` command reads it
    trit.load_into(model, "model.safetensors")       # and this does, for inference
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import struct
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module

from . import ops
from .nn import BitLinear, Norm, PackedBitLinear
from .ops import DEFAULT_EPS, GROUP_LIMIT, GROUP_STEP

Path = str | os.PathLike[str]

_METADATA = {"trit.version": "1", "trit.layout": "rows-2bit", "trit.scale": "multiply"}
_CHECKSUM = "trit.crc32c"
_GROUP = "trit.group"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32",
           torch.int64: "I64", torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.bool: "BOOL"}


@dataclasses.dataclass(frozen=True)
class Stored:
    """The contents of a file in the stored form."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def ternary(self) -> list[str]:
        """The names of ternary layers: "<name>.weight" has a "<name>.weight_scale"."""
        return [key[: -len(".weight_scale")] if key != "weight_scale" else "" for key in self.tensors
                if key == "weight_scale" or key.endswith(".weight_scale")]

    def graph(self) -> dict[str, Any] | None:
        """The graph of the model, if the file has one."""
        text = self.metadata.get("trit.model")
        return None if text is None else dict(json.loads(text))


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _exported(name: str, value: Tensor) -> Tensor:
    """A copy on the CPU: floats as float32, all finite, anything else in its own type."""
    if not value.is_floating_point():
        if value.dtype not in _DTYPES:
            raise TypeError(f"trit.pack: {name} is {value.dtype}, which a safetensors file of trit cannot hold")
        return value.detach().to("cpu", copy=True).contiguous()
    value = value.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not bool(value.isfinite().all()):
        first = int(value.isfinite().logical_not().flatten().byte().argmax())
        columns = value.shape[-1] if value.dim() else 1
        raise ValueError(f"trit.pack: {name} is {value.flatten()[first].item()} at row {first // columns}, column "
                         f"{first % columns}, wanted finite values")
    return value


@torch.no_grad()
def pack(model: Module) -> dict[str, Tensor]:
    """The tensors of a file for `model`: copies on the CPU, by the names of its state dict.

    BitLinear weights become "<name>.weight" uint8 [N, ceil(K / 4)] and "<name>.weight_scale", float32 [1], [N] or
    [N, groups]; all other parameters and floating-point buffers float32; other buffers keep their type. Raises ValueError
    that names tensor, row and column of a NaN or an infinity.
    """
    tensors: dict[str, Tensor] = {}
    # A layer in two places has two names.
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if isinstance(module, BitLinear)}
    weights = {_join(name, "weight") for name in layers}
    parts = tuple(_join(name, "parametrizations.weight.") for name in layers)
    for key, value in model.state_dict().items():
        if key not in weights and not key.startswith(parts):
            tensors[key] = _exported(key, value)
    for name, layer in layers.items():
        key = _join(name, "weight")
        weight = _exported(key, layer.weight)
        scale = ops.absmean(weight, per_row=layer.scale == "row", group=layer.group)
        tensors[key] = ops.ternarize_pack(weight, scale, layer.group)
        tensors[_join(name, "weight_scale")] = scale
    return tensors


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32C of metadata and tensors, as docs/format.md defines it."""
    crc = 0

    def add(text: str) -> None:
        nonlocal crc
        crc = ops.crc32c(torch.frombuffer(bytearray(text.encode() + b"\0"), dtype=torch.uint8), crc)

    for key, value in sorted(metadata.items(), key=lambda item: item[0].encode()):
        if key != _CHECKSUM:
            add(key)
            add(value)
    for name, tensor in sorted(tensors.items(), key=lambda item: item[0].encode()):
        add(name)
        add(_DTYPES[tensor.dtype])
        add("[" + ", ".join(map(str, tensor.shape)) + "]")
        crc = ops.crc32c(_bytes(tensor), crc)
    return f"{crc:08x}"


def _check_graph(model: Module, graph: Mapping[str, Any]) -> None:
    """What the graph says of each ternary layer that its tensors do not show."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for node in graph.get("nodes", []):
        if node.get("op") != "bit_linear":
            continue
        name = str(node.get("name"))
        layer = modules.get(name)
        if not isinstance(layer, (BitLinear, PackedBitLinear)):
            raise ValueError(f'trit.save: the graph has a bit_linear "{name}", and the model has '
                             f"{'no such module' if layer is None else type(layer).__name__} there")
        if node.get("token_scale", "token") != "token":
            raise ValueError(f'trit.save: node "{name}" of the graph has token_scale {node["token_scale"]!r}, the layer '
                             "'token'")
        found = ("none" if layer.norm is None else "rms", layer.eps)
        wanted = (node.get("norm"), node.get("eps", DEFAULT_EPS))
        if found != wanted and not (found[0] == wanted[0] == "none"):
            raise ValueError(f'trit.save: node "{name}" of the graph has norm and eps {wanted}, the layer {found}')


def _group(layers: Mapping[str, BitLinear | PackedBitLinear]) -> int:
    """The size of a file's groups, which has one. A scale of 128 inputs could be written as two of 64, but the sums
    would be other ones, in their last bits."""
    groups = {name: layer.group for name, layer in layers.items() if layer.group}
    for name, group in groups.items():
        first = next(iter(groups))
        if group != groups[first]:
            raise ValueError(f"trit.save: layer {name!r} has weight scales for groups of {group} inputs, wanted "
                             f"{groups[first]} as {first!r} has: a file has one size")
    return next(iter(groups.values()), 0)


def save(model: Module, path: Path, graph: Mapping[str, Any] | str | None = None,
         metadata: Mapping[str, str] | None = None) -> None:
    """Writes pack(model) as a file that the `trit` command and trit::Model read.

    `graph` is the graph of docs/format.md, which says what reads what and makes the file run without Python; its norm
    and eps are compared with the layers. Without one the file holds tensors alone. `metadata` is added to the file's.
    A file has groups of one size: layers of different ones are an error. Atomic: `path` is as it was or whole. The same
    parameters give the same bytes.
    """
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if isinstance(module, (BitLinear, PackedBitLinear))}
    group = _group(layers)
    tensors = pack(model)
    entries = dict(_METADATA)
    if graph is not None:
        parsed = json.loads(graph) if isinstance(graph, str) else graph
        _check_graph(model, parsed)
        entries["trit.model"] = graph if isinstance(graph, str) else json.dumps(graph)
    if group:
        entries[_GROUP] = str(group)
    for name, layer in layers.items():
        if layer.in_features % 4 != 0:
            entries["trit.in_features." + _join(name, "weight")] = str(layer.in_features)
    for key, value in (metadata or {}).items():
        if key in entries or key == _CHECKSUM:
            raise ValueError(f'trit.save: metadata "{key}" is written by save itself')
        entries[key] = value
    entries[_CHECKSUM] = _checksum(tensors, entries)
    _write(pathlib.Path(path), tensors, entries)


def _write(path: pathlib.Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    # Larger elements first, so that each tensor begins at a multiple of its element.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for name in order:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    descriptor, temporary = tempfile.mkstemp(prefix=path.name + ".tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(struct.pack("<Q", len(text)))
            file.write(text)
            for name in order:
                file.write(_bytes(tensors[name]).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def load(path: Path) -> Stored:
    """Reads a file in the stored form, and checks its metadata, its codes and scales, and its checksum."""
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Tensor] = {}
    try:
        opened = safe_open(path, framework="pt")
    except SafetensorError as error:
        with open(path, "rb") as head:
            pointer = head.read(24) == b"version https://git-lfs."
        raise ValueError(f"{path}: " + ("a Git LFS pointer, not the model itself; run `git lfs pull`" if pointer else
                                        f"no safetensors file ({error})")) from error
    with opened as file:
        metadata: dict[str, str] = file.metadata() or {}
        for key, value in _METADATA.items():
            if metadata.get(key) != value:
                raise ValueError(f'{path}: metadata "{key}" is {metadata.get(key)!r}, wanted "{value}": this is no file '
                                 "in the stored form (`trit convert` makes one)")
        for name in file.keys():
            tensors[name] = file.get_tensor(name)
    stored = Stored(tensors, metadata)
    for name in stored.ternary():
        key = _join(name, "weight")
        if key not in tensors:
            raise ValueError(f"{path}: {key}_scale has no {key}")
        scale = tensors[key + "_scale"]
        ops.check_stored(tensors[key], scale,
                         _in_features(stored, name) or 4 * tensors[key].shape[-1], f"{path}: {key}",
                         _stored_group(stored, scale, path))
    if _CHECKSUM in metadata and all(tensor.dtype in _DTYPES for tensor in tensors.values()):
        found = _checksum(tensors, metadata)
        if found != metadata[_CHECKSUM]:
            raise ValueError(f'{path}: corrupt: the checksum of its contents is {found}, its metadata "{_CHECKSUM}" says '
                             f"{metadata[_CHECKSUM]}")
    return stored


def _in_features(stored: Stored, name: str) -> int | None:
    """K of a ternary layer, where the file says it: the codes alone say ceil(K / 4)."""
    text = stored.metadata.get("trit.in_features." + _join(name, "weight"))
    norm = stored.tensors.get(_join(name, "norm.weight"))
    if text is not None:
        return int(text)
    return None if norm is None else norm.numel()


def _stored_group(stored: Stored, scale: Tensor, path: Path = "trit.load_into") -> int:
    """Inputs that share a value of `scale`; 0 where there is one, or one per row."""
    if scale.dim() != 2:
        return 0
    text = stored.metadata.get(_GROUP, "")
    if not text.isdecimal() or not ops.is_group_size(int(text)):
        raise ValueError(f'{path}: metadata "{_GROUP}" is {text!r}, wanted a multiple of {GROUP_STEP}, at most '
                         f"{GROUP_LIMIT}, since there are weight scales of two dimensions")
    return int(text)


def _packed_layer(model: Module, name: str, stored: Stored) -> PackedBitLinear:
    """The layer for the tensors of `name`, with the norm and eps of the module that it replaces."""
    old = model.get_submodule(name)
    codes = stored.tensors[_join(name, "weight")]
    scale = stored.tensors[_join(name, "weight_scale")]
    group = _stored_group(stored, scale)
    known = _in_features(stored, name)
    if (not isinstance(old, (BitLinear, PackedBitLinear, Linear))
            or tuple(codes.shape) != (old.out_features, (old.in_features + 3) // 4)
            or known not in (None, old.in_features)):
        raise ValueError(f"trit.load_into: {_join(name, 'weight')} is uint8 {list(codes.shape)}"
                         + (f" with {known} inputs" if known else "") + f", and the model has {old} there")
    norm: Norm
    if isinstance(old, Linear):
        nodes: list[dict[str, Any]] = (stored.graph() or {}).get("nodes", [])
        node = next((node for node in nodes if node.get("name") == name), {})
        norm = node.get("norm", "rms" if _join(name, "norm.weight") in stored.tensors else "none")
        eps = float(node.get("eps", DEFAULT_EPS))
    else:
        norm, eps = "none" if old.norm is None else "rms", old.eps
    in_features = old.in_features
    layer = PackedBitLinear(in_features, old.out_features, _join(name, "bias") in stored.tensors, norm=norm, eps=eps,
                            scale=f"group:{group}" if group else "tensor" if scale.numel() == 1 else "row")
    device = next((p.device for p in old.parameters()), old.weight.device)
    own = {key[len(name) + 1 if name else 0:]: value for key, value in stored.tensors.items()
           if not name or key.startswith(name + ".")}
    if norm == "rms":
        own.setdefault("norm.weight", torch.ones(in_features))
    layer.load_state_dict(own)
    return layer.to(device).train(old.training)


def load_into(model: Module, file: Path | Stored, strict: bool = True) -> Module:
    """Puts the tensors of a file in the stored form into `model`, for inference; returns the model.

    Its ternary layers replace the BitLinear, PackedBitLinear or torch.nn.Linear of their names by PackedBitLinear; all
    other tensors are loaded as a state dict is, and `strict` as there. A model that is itself such a layer is not
    changed in place: use what is returned.
    """
    stored = file if isinstance(file, Stored) else load(file)
    names = stored.ternary()
    rest = dict(stored.tensors)
    for name in names:
        try:
            layer = _packed_layer(model, name, stored)
        except AttributeError as error:
            raise ValueError(f"trit.load_into: the file has a ternary layer {name!r}, the model has no such module") from error
        for key in ("weight", "weight_scale", "bias", "norm.weight"):
            rest.pop(_join(name, key), None)
        if not name:
            return layer
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    result = model.load_state_dict(rest, strict=False)
    missing = [key for key in result.missing_keys if not any(key.startswith(name + ".") for name in names)]
    if strict and (missing or result.unexpected_keys):
        raise ValueError(f"trit.load_into: the file has no {missing}, and {result.unexpected_keys} are not in the model")
    return model


def freeze(model: Module) -> Module:
    """Replaces every BitLinear of `model` by a PackedBitLinear with the same outputs, in place; returns the model.

    For inference: the weights are ternarised and prepared once. A layer that is in two places stays one layer.
    """
    made: dict[BitLinear, PackedBitLinear] = {}

    def frozen(layer: BitLinear) -> PackedBitLinear:
        if layer not in made:
            made[layer] = _packed_layer(layer, "", Stored(pack(layer), {_GROUP: str(layer.group)} if layer.group else {}))
        return made[layer]

    if isinstance(model, BitLinear):
        return frozen(model)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if isinstance(child, BitLinear):
                setattr(module, name, frozen(child))
    return model
