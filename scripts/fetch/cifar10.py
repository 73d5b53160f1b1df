# SPDX-License-Identifier: MIT
"""CIFAR-10, binary version: an archive of six files, each with 10,000 records of 3,073 bytes."""
import contextlib
import gzip
import os
import pathlib
import shutil
import tarfile
import time
import zlib

from .common import DataError, check_labels, check_sizes, locked, made_whole, say, valid_folder
from .download import download

# The environment variables are for the tests.
URL = os.environ.get("TRIT_CIFAR10_URL", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")
MD5 = os.environ.get("TRIT_CIFAR10_MD5", "c32a1d4ab5d03f1284b67883e8d87530")
INNER = "cifar-10-batches-bin"
RECORD = 1 + 3 * 32 * 32
SIZES = {f"{name}.bin": 10_000 * RECORD for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]}
RETRY_AFTER = 3600  # seconds after a failure during which --dataset auto does not try again


def valid(folder: pathlib.Path) -> pathlib.Path:
    return valid_folder(folder, INNER, SIZES)


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Extracts the files listed in SIZES, without their paths, and checks them."""
    inner = folder / INNER
    inner.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = pathlib.PurePosixPath(member.name).name
                if member.isreg() and (name in SIZES or name == "batches.meta.txt"):
                    with tar.extractfile(member) as source, (inner / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{archive}: {error}") from None
    check_sizes(inner, SIZES)
    for name in SIZES:
        check_labels(inner / name, (inner / name).read_bytes()[::RECORD], 0, RECORD)


def in_cache(cache: pathlib.Path) -> pathlib.Path | None:
    with contextlib.suppress(DataError):
        return valid(cache / "cifar10")
    return None


def fetch(cache: pathlib.Path, patient: bool) -> pathlib.Path:
    """The folder of CIFAR-10 in the cache, downloaded first if it is missing. `patient`: also after a recent failure."""
    failed = cache / "cifar10.failed"
    with locked(cache):
        if found := in_cache(cache):
            return found
        if not patient and failed.exists():
            age = time.time() - failed.stat().st_mtime
            if 0 <= age < RETRY_AFTER:
                raise DataError(f"{failed.read_text().strip()} (tried {age / 60:.0f} minutes ago; "
                                f"--dataset cifar10 tries again now)")
        part = cache / "cifar-10-binary.tar.gz.part"
        try:
            download(URL, MD5, part)
        except DataError as error:
            failed.write_text(f"{error}\n")
            raise
        failed.unlink(missing_ok=True)
        with made_whole(cache / "cifar10") as (made, _):
            unpack(part, made)
        part.unlink()
        say(f"CIFAR-10 is in {cache / 'cifar10'}")
        return (cache / "cifar10").resolve()
