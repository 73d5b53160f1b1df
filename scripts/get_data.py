#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Finds or fetches the training images and prints one line on standard output: the data set's name, then, where it
has files, a space and their folder.

auto (the default) takes the first that works:
  1. CIFAR-10 in --data or, without that, in TRIT_CIFAR10 (given but not valid: an error),
  2. CIFAR-10 in the cache folder, downloaded there first if need be (180 MB unpacked),
  3. Fashion-MNIST from the package dataset-fashion-mnist of Debian and Ubuntu (no root needed),
  4. the drawn set, which needs no files.
With --dataset NAME, only that data set is tried, and failing to get it is an error. The next run resumes a download
that broke off. A data set appears in the cache only when it is complete. Exit codes: 0, 1 failed, 2 wrong usage,
130 interrupted.
"""
import argparse
import os
import pathlib
import sys
import textwrap

from fetch import cifar10, fashion_mnist
from fetch.common import DataError, say


def box(lines: list[str]) -> None:
    wrapped = [part for line in lines for part in textwrap.wrap(line, 76, break_on_hyphens=False)]
    edge = "+" + "-" * 78 + "+"
    print("\n".join(["", edge, *(f"| {line:<76} |" for line in wrapped), edge, ""]), file=sys.stderr, flush=True)


def cache_folder() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    root = pathlib.Path(cache) if os.path.isabs(cache) else pathlib.Path.home() / ".cache"
    return root / "trit"


def find(dataset: str, data: str | None, cache: pathlib.Path) -> tuple[str, pathlib.Path | None]:
    if dataset == "drawn":
        return "drawn", None
    if dataset == "fashion-mnist":
        return dataset, fashion_mnist.valid(pathlib.Path(data)) if data else fashion_mnist.fetch(cache)
    given = data or os.environ.get("TRIT_CIFAR10")
    if given:
        try:
            return "cifar10", cifar10.valid(pathlib.Path(given))
        except DataError as error:
            raise DataError(f"{'--data' if data else 'TRIT_CIFAR10'} is not CIFAR-10: {error}") from None
    if dataset == "cifar10":
        return dataset, cifar10.fetch(cache, patient=True)
    try:
        return "cifar10", cifar10.fetch(cache, patient=False)
    except DataError as error:
        why = ["COULD NOT GET CIFAR-10.", str(error)]
    how = ["For CIFAR-10: give the folder of its binary version with --data FOLDER or TRIT_CIFAR10=FOLDER."]
    try:
        folder = fashion_mnist.fetch(cache)
    except DataError as error:
        box([*why, "Could not get Fashion-MNIST either:", str(error),
             "Using the DRAWN set instead; all accuracies below refer to it.", *how])
        return "drawn", None
    box([*why, "Using FASHION-MNIST instead; all accuracies below refer to it.", *how])
    return "fashion-mnist", folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=["auto", "cifar10", "fashion-mnist", "drawn"], default="auto")
    parser.add_argument("--data", metavar="DIR", help="folder that holds the files")
    args = parser.parse_args()
    try:
        name, folder = find(args.dataset, args.data, cache_folder())
    except DataError as error:
        say(str(error))
        return 1
    except OSError as error:  # the disk: full, not writable
        say(f"{error.filename or cache_folder()}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next run resumes")
        return 130
    print(name if folder is None else f"{name} {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
