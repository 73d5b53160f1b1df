# SPDX-License-Identifier: MIT
"""Fashion-MNIST from the package dataset-fashion-mnist of Debian and Ubuntu, unpacked to raw IDX files."""
import contextlib
import gzip
import pathlib
import shutil
import subprocess
import sys
import zlib

from .common import CONNECT_SECONDS, DataError, check_idx, check_labels, check_sizes, locked, made_whole, say, valid_folder

PACKAGE = "dataset-fashion-mnist"
PLACE = "usr/share/datasets/fashion-mnist"
COUNTS = {"train": 60_000, "t10k": 10_000}
SIZES = {f"{part}-{kind}": size for part, count in COUNTS.items()
         for kind, size in (("images-idx3-ubyte", 16 + count * 28 * 28), ("labels-idx1-ubyte", 8 + count))}


def valid(folder: pathlib.Path) -> pathlib.Path:
    return valid_folder(folder, "fashion-mnist", SIZES)


def apt(arguments: list[str], folder: pathlib.Path) -> None:
    # Without the sandbox user root's apt can write to the temporary folder; others are not affected.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", f"Acquire::http::Timeout={CONNECT_SECONDS}",
               "-o", f"Acquire::https::Timeout={CONNECT_SECONDS}", "-o", "Acquire::Retries=1", *arguments]
    try:
        result = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, errors="replace", timeout=600)
    except FileNotFoundError:
        raise DataError("there is no apt-get on this system") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"apt-get {arguments[-1]}: not finished after 600 s") from None
    if result.returncode != 0:
        last = [line for line in result.stdout.splitlines() if line.strip()][-1:]
        raise DataError(f"apt-get {arguments[-2]} {arguments[-1]}: {' '.join(last) or result.returncode}")


def archives_of_package(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the package's .gz files: where it is installed, or unpacked below `folder`."""
    installed = pathlib.Path("/") / PLACE
    if all((installed / f"{name}.gz").is_file() for name in SIZES):
        return installed
    say(f"fetching Fashion-MNIST: apt-get download {PACKAGE} (31 MB)")
    try:
        apt(["download", PACKAGE], folder)
    except DataError as error:
        # A fresh image has no package lists. Fetching them into a folder of ours needs no root.
        say(f"{error}; trying again with fresh package lists")
        own = ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        apt([*own, "-y", "update"], folder)
        apt([*own, "download", PACKAGE], folder)
    packages = list(folder.glob(f"{PACKAGE}_*.deb"))
    try:
        subprocess.run(["dpkg", "-x", packages[0], folder / "package"], check=True, stdout=sys.stderr)
    except (IndexError, OSError, subprocess.CalledProcessError) as error:
        raise DataError(f"dpkg -x {PACKAGE}: {error}") from None
    return folder / "package" / PLACE


def unpack(archives: pathlib.Path, folder: pathlib.Path) -> None:
    for name, size in SIZES.items():
        source = archives / f"{name}.gz"
        try:
            with gzip.open(source) as packed, (folder / name).open("wb") as target:
                shutil.copyfileobj(packed, target)
        except (EOFError, gzip.BadGzipFile, zlib.error, FileNotFoundError) as error:
            raise DataError(f"{source}: {error}") from None
    check_sizes(folder, SIZES)
    for part, count in COUNTS.items():
        check_idx(folder / f"{part}-images-idx3-ubyte", 0x803, [count, 28, 28])
        labels = folder / f"{part}-labels-idx1-ubyte"
        check_idx(labels, 0x801, [count])
        check_labels(labels, labels.read_bytes()[8:], 8, 1)


def fetch(cache: pathlib.Path) -> pathlib.Path:
    target = cache / "fashion-mnist"
    with locked(cache):
        with contextlib.suppress(DataError):
            return valid(target)
        with made_whole(target) as (made, scratch):
            unpack(archives_of_package(scratch), made)
        say(f"Fashion-MNIST is in {target}")
        return target.resolve()
