# SPDX-License-Identifier: MIT
"""What the tables of bench/tables.py have in common: means, names of shapes and machines, Markdown."""
import math
import statistics


def mean(values) -> float:
    """The geometric mean: what ratios are averaged by."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def table(heading: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def shape_of(result: dict) -> tuple[int, int]:
    return result["out_features"], result["in_features"]


def shape_text(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def shapes_text(results: list[dict]) -> str:
    shapes = sorted({shape_of(result) for result in results}, key=lambda shape: shape[0] * shape[1])
    names = ", ".join(map(shape_text, shapes))
    return f"of {names}" if len(shapes) == 1 else f"geometric means over {names}"


def threads_text(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def versions_text(found: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in found["versions"].items())
