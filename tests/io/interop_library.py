# SPDX-License-Identifier: MIT
"""What the tests against native libraries of other projects share. They are no default tests, since they download
packages; `make interop` runs them."""
import argparse
import ctypes
import os
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def download(package: str, version: str, folder: Path, form: str) -> None:
    """A package of PyPI into `folder`; `form` is "--only-binary" or "--no-binary"."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"interop: downloading {package} {version}", flush=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    form, package, "--dest", folder, f"{package}=={version}"], check=True)


def load_library(path: Path, functions: dict[str, tuple]) -> ctypes.CDLL:
    """name -> (result, argument, ...)."""
    library = ctypes.CDLL(str(path))
    for name, (result, *arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def main(description: str, folder: str, tests) -> None:
    """Runs the test case that tests(folder) makes. --folder keeps what was downloaded."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--trit", type=Path, default=ROOT / "build" / "bin" / "trit", help="the command")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / folder, help="for downloads")
    arguments = parser.parse_args()
    os.environ["TRIT_COMMAND"] = str(arguments.trit.resolve())
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(tests(arguments.folder))
    sys.exit(0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1)
