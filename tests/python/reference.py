# SPDX-License-Identifier: MIT
"""The layer in plain torch operations: docs/numerics.md step by step, and its gradient by autograd."""

import pathlib
import subprocess
from collections.abc import Callable, Iterator, Sequence

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def bits_equal(a: Tensor, b: Tensor) -> bool:
    """Equal in every bit, but for the payload of a NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    same = (a == b) | (a.isnan() & b.isnan()) if a.is_floating_point() else a == b
    signs = torch.signbit(a) == torch.signbit(b) if a.is_floating_point() else same
    return bool((same & (signs | a.isnan())).all())


def quantised(x: Tensor, norm_weight: Tensor | None, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """q and s of x [M, K] in float32, each operation rounded by itself, from the given 1 / sqrt(mean + eps)."""
    xg = x.float() if norm_weight is None else x.float() * norm_weight.float()
    a = (rstd * xg.abs().amax(1)).clamp(min=1e-5)
    c = rstd * (torch.tensor(127.0) / a)
    bad = ~(a.isfinite() & rstd.isfinite())
    q = (xg * c.unsqueeze(1)).round().clamp(-128, 127)
    q[bad] = 0
    s = a / torch.tensor(127.0)
    s[bad] = float("nan")
    return q.to(torch.int8), s


def unpacked(codes: Tensor, in_features: int) -> Tensor:
    """t int8 [N, K] of codes uint8 [N, ceil(K / 4)]."""
    fields = codes.unsqueeze(2) >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8) & 3
    return torch.tensor([0, 1, 0, -1], dtype=torch.int8)[fields.long()].reshape(len(codes), -1)[:, :in_features]


TRAIN_PARTS = ("y", "q", "scale", "rstd", "codes", "weight_scale")


def train_parts(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """TRAIN_PARTS of what trit_stable::bit_linear_train returns, whose `scales` [2, M] are s and r."""
    y, q, scales, codes, weight_scale = outputs
    return y, q, scales[0], scales[1], codes, weight_scale


def epilogue(q: Tensor, s: Tensor, t: Tensor, beta: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    acc = (q.double() @ t.double().T).to(torch.int32)
    y = acc.float() * s.unsqueeze(1) * beta
    return (y if bias is None else y + bias.float()).to(dtype)


def plain_layer(x: Tensor, weight: Tensor, bias: Tensor | None, norm_weight: Tensor | None, rms: bool, eps: float,
                per_row: bool, rounded: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Fake quantisation with a straight-through estimator. `rounded`: x and W after rounding, so that both sides of a
    comparison round alike; their own otherwise."""
    n = x
    if rms:
        n = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        n = n if norm_weight is None else n * norm_weight
    if rounded is None:
        s = n.detach().abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127
        beta = weight.detach().abs().mean(1 if per_row else (0, 1), keepdim=True).clamp(min=1e-5)
        rounded = ((n.detach() / s).round().clamp(-128, 127) * s, (weight.detach() / beta).round().clamp(-1, 1) * beta)
    inputs = n + (rounded[0] - n).detach()
    weights = weight + (rounded[1] - weight).detach()
    return torch.nn.functional.linear(inputs, weights, bias)


def assert_gradients(layer: Callable[..., Tensor], plain: Callable[..., Tensor], values: Sequence[Tensor | None], grad: Tensor) -> None:
    """layer(*values) and its gradients against those of `plain` in float64; `values` are x, weight, bias and norm weight."""
    want = [None if value is None else value.double().requires_grad_() for value in values]
    y = plain(*want)
    y.backward(grad.double())
    found = [None if value is None else value.clone().requires_grad_() for value in values]
    ours = layer(*found)
    ours.backward(grad)
    assert torch.allclose(ours.double(), y, rtol=1e-5, atol=1e-5 * float(y.detach().abs().max()))
    for name, a, b in zip(("x", "weight", "bias", "norm weight"), found, want, strict=True):
        if a is not None:
            # Sums of at most 600 terms in fp32: 600 * 2^-24 of the sum of magnitudes.
            bound = 4e-5 * float(b.grad.abs().max()) + 1e-6
            assert float((a.grad - b.grad).abs().max()) <= bound, name


def golden_values() -> Iterator[int]:
    s = 1
    while True:
        s = (1103515245 * s + 12345) & 0x7FFFFFFF
        yield s >> 16


def golden_case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and norm weight of the small case of docs/numerics.md."""
    values = golden_values()

    def take(count: int) -> Tensor:
        return torch.tensor([next(values) for _ in range(count)], dtype=torch.float64)

    weight = ((take(3000) - 16384) / 131072).float().reshape(5, 600)
    x = ((take(1800) - 16384) / 4096).float().reshape(3, 600)
    norm_weight = (take(600) / 32768 + 0.5).float()
    return x, weight, ((take(5) - 16384) / 16384).float(), norm_weight


def words(tensor: Tensor) -> str:
    """The bits of float32 values, as docs/numerics.md writes them."""
    return " ".join(f"{value & 0xffffffff:08x}" for value in tensor.view(torch.int32).tolist())


def run_command(trit_command: str, model: pathlib.Path, x: Tensor, folder: pathlib.Path) -> Tensor:
    """What `trit run` makes of x."""
    save_file({"x": x}, folder / "x.safetensors")
    subprocess.run([trit_command, "run", model, "--input", folder / "x.safetensors", "--output", folder / "y.safetensors"],
                   check=True, capture_output=True)
    return next(iter(load_file(folder / "y.safetensors").values()))
