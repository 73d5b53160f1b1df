#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prepares this checkout: installs missing system packages, then requirements.txt into the virtual environment .venv.

    python3 scripts/setup.py            what `make train` and `make test` call first
    python3 scripts/setup.py --docs     doxygen alone, for `make docs`

It returns at once when nothing has changed. A stamp in .venv holds a hash of requirements.txt, this file and the Python
version. The stamp is written last, so the next run completes an interrupted set-up. Outside .venv only missing Debian
packages are installed, and only where that needs no password.
"""
import sys

if sys.version_info < (3, 11):  # before anything that an older Python could not parse or import
    sys.exit("trit needs Python 3.11 or newer, %s is %d.%d; name another one: make PYTHON=/usr/bin/python3.12"
             % ((sys.executable,) + sys.version_info[:2]))

import fcntl
import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "trit-setup.stamp"
REQUIREMENTS = ROOT / "requirements.txt"
DISK_NEEDED = 9 << 30  # bytes: torch with its CUDA libraries unpacks to 5 GiB, pip's downloads take 3

# Files that must exist (those of usr/ may be in usr/local/) -> the Debian and Ubuntu package that has them.
NEEDED_FILES = {
    "usr/include/nlohmann/json.hpp": "nlohmann-json3-dev",
    "usr/include/CLI/CLI.hpp": "libcli11-dev",
    "usr/include/fmt/format.h": "libfmt-dev",
    "usr/include/gtest/gtest.h": "libgtest-dev",
    "etc/ssl/certs/ca-certificates.crt": "ca-certificates",  # https downloads of the data sets
}


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def fingerprint() -> str:
    content = REQUIREMENTS.read_bytes() + pathlib.Path(__file__).read_bytes() + f"{sys.version_info[:3]} {ROOT}".encode()
    return hashlib.sha256(content).hexdigest()


def has_cxx20_compiler() -> bool:
    compiler = os.environ.get("CXX") or "c++"
    source = "#include <concepts>\n#include <span>\nint main() { std::span<int> s; return static_cast<int>(s.size()); }\n"
    try:
        with tempfile.TemporaryDirectory() as folder:
            command = [*compiler.split(), "-std=c++20", "-fopenmp", "-x", "c++", "-", "-o", f"{folder}/a.out"]
            return subprocess.run(command, input=source.encode(), capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def missing_packages() -> list[str]:
    missing = [package for file, package in NEEDED_FILES.items()
               if not (pathlib.Path("/", file).exists() or pathlib.Path("/", file.replace("usr/", "usr/local/")).exists())]
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing.append(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
    if not has_cxx20_compiler():
        if os.environ.get("CXX"):
            sys.exit(f"setup: CXX={os.environ['CXX']} does not compile C++20 with OpenMP; unset it or name another compiler")
        missing.append("g++")
    return missing


def install_packages(packages: list[str]) -> None:
    """Installs them by apt-get, as root or by password-less sudo; otherwise prints the command and exits."""
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        sys.exit("setup: missing libraries, by their Debian names: " + " ".join(packages) +
                 "\nsetup: there is no apt-get here; install them (headers in /usr/include or /usr/local/include) and run again")
    if os.geteuid() == 0:
        prefix = ["env", "DEBIAN_FRONTEND=noninteractive"]
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        prefix = ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"]
    else:
        sys.exit("setup: missing system packages; nothing has been changed. Run this, then the same make again:\n\n"
                 "    sudo apt-get update && sudo apt-get install " + " ".join(packages) + "\n")
    say("installing system packages: " + " ".join(packages))
    wait = ["-o", "DPkg::Lock::Timeout=300"]  # seconds for another installation to end: a new machine often updates itself
    for command in (["apt-get", "update", "-qq"], [*install, *wait]):
        if subprocess.run([*prefix, *command], stdout=sys.stderr).returncode != 0:
            sys.exit(f"setup: '{' '.join(command)}' failed; see the lines above")
    still = missing_packages()
    if still:
        sys.exit("setup: still missing after apt-get: " + " ".join(still))


def works(python: pathlib.Path) -> bool:
    """Whether it is this version of Python, with pip."""
    check = f"import sys, pip; sys.exit(sys.version_info[:3] != {tuple(sys.version_info[:3])})"
    return python.exists() and subprocess.run([python, "-c", check], capture_output=True).returncode == 0


def make_venv() -> None:
    """Installs requirements.txt into .venv, then writes the stamp.

    A finished .venv, or one that a user made, is updated in place, which is quick where little has changed. One that
    was left unfinished, or belongs to another Python or folder (its scripts contain its path), is made again."""
    if VENV.is_symlink():
        sys.exit(f"setup: {VENV} is a link to {VENV.resolve()}, which is not finished: run 'make setup' in the checkout that owns "
                 "it, or remove the link")
    python = VENV / "bin" / "python"
    config = VENV / "pyvenv.cfg"
    made_by = config.read_text() if config.exists() else ""
    unfinished = f" --clear {VENV}\n" in made_by and not STAMP.exists()
    if unfinished or f" {VENV}\n" not in made_by or not works(python):
        if VENV.exists() and not config.exists() and any(VENV.iterdir()):
            sys.exit(f"setup: {VENV} is not a virtual environment; move it away and run again")
        free = shutil.disk_usage(ROOT).free
        if free < DISK_NEEDED:
            sys.exit(f"setup: {ROOT} has {free / 2**30:.1f} GiB free; the packages need {DISK_NEEDED >> 30} GiB while they are installed")
        say(f"making the virtual environment {VENV} (Python {sys.version.split()[0]})")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    STAMP.unlink(missing_ok=True)
    say("installing into it (torch is most of 5 GiB; a minute or more):")
    for line in REQUIREMENTS.read_text().splitlines():
        if line and not line.startswith("#"):
            say(f"  {line}")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(REQUIREMENTS)],
                   check=True, stdout=sys.stderr)
    STAMP.write_text(fingerprint() + "\n")
    say("done")


def is_done() -> bool:
    # A link leads to another checkout's environment: that checkout made it, and it alone may change it.
    return STAMP.exists() and (VENV.is_symlink() or STAMP.read_text().strip() == fingerprint())


def main() -> None:
    if sys.argv[1:] == ["--docs"]:
        if shutil.which("doxygen") is None:
            install_packages(["doxygen"])
        return
    if is_done():
        return
    checkout = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(checkout, fcntl.LOCK_EX)  # of two makes at once the second waits, then finds everything done
    if is_done():
        return
    packages = missing_packages()
    if packages:
        install_packages(packages)
    make_venv()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"setup: '{' '.join(map(str, error.cmd))}' failed with exit code {error.returncode}; run the same make again to continue")
    except OSError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        say("interrupted; the next run continues")
        sys.exit(130)
