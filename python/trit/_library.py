# SPDX-License-Identifier: MIT
"""Finds and loads libtrit_torch_stable.so, and says what it is."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import torch

MIN_TORCH = (2, 11)
NAME = "libtrit_torch_stable.so"


@dataclasses.dataclass(frozen=True)
class BuildInfo:
    """What the library that was loaded can do on this machine."""

    version: str
    backends: tuple[str, ...]  # CPU backends, slowest first
    backend: str  # the one that is used (TRIT_BACKEND)
    cuda: bool  # whether it was built with the GPU half
    panel_rows: int  # of prepared weights on the CPU
    panel_bytes: int  # of a panel per 4 inputs


def _path() -> pathlib.Path:
    """TRIT_LIBRARY, for working on trit itself, or the file beside this one."""
    named = os.environ.get("TRIT_LIBRARY")
    path = pathlib.Path(named) if named else pathlib.Path(__file__).with_name(NAME)
    if not path.is_file():
        raise ImportError(
            f"trit: {path} does not exist" + (" (TRIT_LIBRARY)" if named else "") + "; wanted the library that "
            "`pip install .` builds, or TRIT_LIBRARY=build/lib/" + NAME
        )
    return path


def _check_torch() -> None:
    version = torch.__version__.split("+")[0]
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_TORCH:
        wanted = ".".join(map(str, MIN_TORCH))
        raise ImportError(f"trit: torch {version} found, {wanted} or newer wanted: pip install 'torch>={wanted}'")


def load() -> BuildInfo:
    """Registers the operators. Raises ImportError that says what was found and what is wanted."""
    _check_torch()
    path = _path()
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"trit: {path} does not load into torch {torch.__version__}: {error}. It is built for one kind of "
            "processor and operating system; `pip install .` builds it for this one"
        ) from error
    lines = dict(line.split(" ", 1) for line in torch.ops.trit_stable.build_info().splitlines())
    return BuildInfo(
        version=lines["version"],
        backends=tuple(lines["backends"].split()),
        backend=lines["backend"],
        cuda=lines["cuda"] == "1",
        panel_rows=int(lines["panel_rows"]),
        panel_bytes=int(lines["panel_bytes"]),
    )


INFO = load()
