# SPDX-License-Identifier: MIT
"""The group scales of the small case of docs/numerics.md, computed without this library.

    golden_groups.py             prints the table
    golden_groups.py --check     fails where docs/numerics.md says something else

fp32 operations are NumPy's, but for fma, which is computed exactly and rounded once.
"""
import fractions
import pathlib
import sys

import numpy as np

F = np.float32
DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "numerics.md"
N, K, M, GROUP, EPS = 5, 600, 3, 128, F(1e-6)
GROUPS = [slice(first, min(first + GROUP, K)) for first in range(0, K, GROUP)]


def generate() -> list[np.ndarray]:
    state, values = 1, []
    for _ in range(N * K + M * K + K + N):
        state = (1103515245 * state + 12345) & 0x7FFFFFFF
        values.append(state >> 16)
    v = np.array(values).astype(F)
    ends = np.cumsum([N * K, M * K, K, N])
    w, x, g, bias = (v[end - size:end] for size, end in zip((N * K, M * K, K, N), ends))
    return [((w - F(16384)) / F(131072)).reshape(N, K), ((x - F(16384)) / F(4096)).reshape(M, K),
            g / F(32768) + F(0.5), (bias - F(16384)) / F(16384)]


def fma(a: F, b: F, c: F) -> F:
    """a * b + c, rounded once: to the neighbour of the double's float that is nearest, the even one of two."""
    exact = fractions.Fraction(float(a)) * fractions.Fraction(float(b)) + fractions.Fraction(float(c))
    near = F(float(exact))
    candidates = [np.nextafter(near, F(-np.inf)), near, np.nextafter(near, F(np.inf))]
    return min(candidates, key=lambda f: (abs(fractions.Fraction(float(f)) - exact), int(f.view(np.uint32)) & 1))


def lane_sum(terms: np.ndarray, squares: bool = False) -> F:
    acc = np.zeros(256, F)
    for i, term in enumerate(terms):
        acc[i % 256] = fma(term, term, acc[i % 256]) if squares else acc[i % 256] + term
    while len(acc) > 1:
        acc = acc[:len(acc) // 2] + acc[len(acc) // 2:]
    return acc[0]


def round_to_codes(values: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip(np.rint(values), low, high).astype(np.int64)


def ternary(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    beta = np.array([[max(lane_sum(np.abs(row[g])) / F(len(row[g])), F(1e-5)) for g in GROUPS] for row in w], F)
    t = [[round_to_codes(row[g] * (F(1) / b), -1, 1) for g, b in zip(GROUPS, betas)] for row, betas in zip(w, beta)]
    return np.array([np.concatenate(row) for row in t]), beta


def quantised(x: np.ndarray, norm_weight: np.ndarray, groups: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    q, scale = [], []
    for row in x:
        r = F(1) / np.sqrt(lane_sum(row, squares=True) / F(K) + EPS)
        weighted = row * norm_weight
        a = [max(r * np.max(np.abs(weighted[g])), F(1e-5)) for g in groups]
        q.append(np.concatenate([round_to_codes(weighted[g] * (r * (F(127) / b)), -128, 127) for g, b in zip(groups, a)]))
        scale.append([b / F(127) for b in a])
    return np.array(q), np.array(scale, F)


def layer(q: np.ndarray, scale: np.ndarray, t: np.ndarray, beta: np.ndarray, bias: np.ndarray) -> np.ndarray:
    y = np.zeros((M, N), F)
    for m in range(M):
        for n in range(N):
            acc = F(0)
            for i, g in enumerate(GROUPS):
                weight = beta[n][i] * scale[m][i] if scale.shape[1] > 1 else beta[n][i]
                acc = fma(F(int(q[m][g] @ t[n][g])), weight, acc)
            y[m][n] = (acc if scale.shape[1] > 1 else acc * scale[m][0]) + bias[n]
    return y


def rotated(x: np.ndarray, signs: np.ndarray) -> np.ndarray:
    z, h = x * signs, 1
    while h < len(z):
        pairs = z.reshape(-1, 2, h)
        z = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        h *= 2
    return z * (F(1) / np.sqrt(F(len(z))))


def hexadecimal(values: np.ndarray) -> str:
    return " ".join(f"{int(value):08x}" for value in np.asarray(values, F).view(np.uint32))


def rows() -> list[tuple[str, str]]:
    w, x, norm_weight, bias = generate()
    t, beta = ternary(w)
    table = [(f"beta[{n}]", hexadecimal(beta[n])) for n in range(N)]
    table.append(("counts of -1, 0, +1", ", ".join(str(int((t == value).sum())) for value in (-1, 0, 1))))
    q, scale = quantised(x, norm_weight, [slice(0, K)])
    table += [(f"y, s of a token, row {m}", hexadecimal(row)) for m, row in enumerate(layer(q, scale, t, beta, bias))]
    q, scale = quantised(x, norm_weight, GROUPS)
    table += [(f"s[{m}] of each group", hexadecimal(scale[m])) for m in range(M)]
    table.append(("q[0][0..7]", " ".join(map(str, q[0][:8]))))
    table.append(("q[0][592..599]", " ".join(map(str, q[0][592:]))))
    table += [(f"y, s of a token and group, row {m}", hexadecimal(row))
              for m, row in enumerate(layer(q, scale, t, beta, bias))]
    z = rotated(x[0][:512], np.where(w[0][:512] < 0, F(-1), F(1)))
    table += [("z[0..3]", hexadecimal(z[:4])), ("z[508..511]", hexadecimal(z[508:]))]
    return table


def main() -> int:
    lines = [f"| {what} | {value} |" for what, value in rows()]
    if "--check" not in sys.argv[1:]:
        print("\n".join(lines))
        return 0
    missing = [line for line in lines if line not in DOCUMENT.read_text().splitlines()]
    for line in missing:
        print(f"{DOCUMENT} has no line {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
