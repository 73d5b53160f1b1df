# SPDX-License-Identifier: MIT
"""Shared by all data sets: checks of files, the lock on the cache, atomic replacement of folders."""
import contextlib
import fcntl
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

CONNECT_SECONDS = 10
NEW, OLD = ".new-", ".old-"  # in the names of temporary folders beside the data sets


class DataError(Exception):
    """Why a data set is missing or invalid."""


def say(text: str) -> None:
    print(f"data: {text}", file=sys.stderr, flush=True)


def check_sizes(folder: pathlib.Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        if path.stat().st_size != size:
            raise DataError(f"{path}: {path.stat().st_size} bytes, wanted {size}")


def check_labels(path: pathlib.Path, labels: bytes, first: int, step: int) -> None:
    for index, label in enumerate(labels):
        if label > 9:
            raise DataError(f"{path}: label {label}, wanted 0..9, at offset {first + index * step}")


def check_idx(path: pathlib.Path, magic: int, shape: list[int]) -> None:
    with path.open("rb") as file:
        words = [int.from_bytes(file.read(4), "big") for _ in range(1 + len(shape))]
    if words != [magic, *shape]:
        raise DataError(f"{path}: IDX header {words}, wanted {[magic, *shape]}, at offset 0")


def valid_folder(folder: pathlib.Path, inner: str, sizes: dict[str, int]) -> pathlib.Path:
    """Returns `folder`. DataError unless the files, with their exact sizes, are in it or in its subfolder `inner`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    nested = not (folder / next(iter(sizes))).exists() and (folder / inner).is_dir()
    check_sizes(folder / inner if nested else folder, sizes)
    return folder.resolve()


@contextlib.contextmanager
def locked(cache: pathlib.Path) -> Iterator[None]:
    """Only one process at a time fetches data into `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is fetching data; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for pattern in (f"*{NEW}*", f"*{OLD}*"):  # left by a run that was killed
            for folder in cache.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)
        yield


def put_in_place(made: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a complete folder to `target`. An invalid folder that is there already is removed."""
    if target.exists():
        old = pathlib.Path(tempfile.mkdtemp(prefix=f"{target.name}{OLD}", dir=target.parent))
        target.rename(old / target.name)
        shutil.rmtree(old)
    made.rename(target)


@contextlib.contextmanager
def made_whole(target: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Two new folders: one that is renamed to `target` when the block succeeds, and one for temporary files."""
    with tempfile.TemporaryDirectory(prefix=f"{target.name}{NEW}", dir=target.parent) as new:
        made, scratch = pathlib.Path(new) / target.name, pathlib.Path(new) / "scratch"
        made.mkdir()
        scratch.mkdir()
        yield made, scratch
        put_in_place(made, target)
