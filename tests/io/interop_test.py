# SPDX-License-Identifier: MIT
"""Files of this library and of the Python package safetensors, read by each other.

interop_test.py PROGRAM: `PROGRAM write FILE` writes a known file, `PROGRAM list FILE` prints a line of JSON per
tensor of a file (see interop_program.cpp).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from safetensors import safe_open
from safetensors.numpy import load_file, save_file


def listed(program: str, path: Path) -> dict:
    text = subprocess.run([program, "list", str(path)], check=True, capture_output=True, text=True).stdout
    return {entry.pop("name"): entry for entry in map(json.loads, text.splitlines())}


def python_reads_ours(program: str, folder: Path) -> None:
    path = folder / "ours.safetensors"
    subprocess.run([program, "write", str(path)], check=True)
    tensors = load_file(path)
    assert set(tensors) == {"f32", "u8", "scalar", "empty", 'na"me é'}, set(tensors)
    numpy.testing.assert_array_equal(tensors["f32"], numpy.arange(6, dtype=numpy.float32).reshape(2, 3) / 4)
    numpy.testing.assert_array_equal(tensors["u8"], numpy.array([1, 2, 255], dtype=numpy.uint8))
    assert tensors["scalar"].shape == () and tensors["scalar"].dtype == numpy.int64 and tensors["scalar"] == -7
    assert tensors["empty"].shape == (0, 4) and tensors["empty"].dtype == numpy.float16
    numpy.testing.assert_array_equal(tensors['na"me é'], numpy.array([-1, 1], dtype=numpy.int16))
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"key": "välue\n", "": "empty key"}, file.metadata()


def ours_reads_python(program: str, folder: Path) -> None:
    path = folder / "python.safetensors"
    generator = numpy.random.default_rng(1)
    types = {
        "F64": numpy.float64, "F32": numpy.float32, "F16": numpy.float16,
        "I64": numpy.int64, "I32": numpy.int32, "I16": numpy.int16, "I8": numpy.int8,
        "U64": numpy.uint64, "U32": numpy.uint32, "U16": numpy.uint16, "U8": numpy.uint8, "BOOL": numpy.bool_,
    }  # fmt: skip
    tensors = {}
    for dtype, kind in types.items():
        for shape in [(), (3,), (2, 5), (0, 2), (1, 2, 3, 4)]:
            name = f"{dtype} {shape} \"quoted\" ü"
            tensors[name] = numpy.asarray(generator.integers(0, 2, size=shape)).astype(kind)
    save_file(tensors, path, metadata={"format": "pt", "ü": "\t"})
    found = listed(program, path)
    assert found.pop("__metadata__")["value"] == {"format": "pt", "ü": "\t"}
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        entry = found[name]
        assert entry["dtype"] == name.split()[0], (name, entry)
        assert tuple(entry["shape"]) == value.shape, (name, entry)
        assert bytes.fromhex(entry["data"]) == value.tobytes(), (name, entry)


def both_write_the_same_bytes(program: str, folder: Path) -> None:
    """One element size and no metadata: both writers order by name."""
    ours, theirs = folder / "same-ours.safetensors", folder / "same-theirs.safetensors"
    subprocess.run([program, "write-plain", str(ours)], check=True)
    save_file({"b": numpy.array([1, 2], numpy.float32), "a": numpy.array([[0.5]], numpy.float32)}, theirs)
    assert ours.read_bytes() == theirs.read_bytes(), (ours.read_bytes(), theirs.read_bytes())


def main() -> None:
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        python_reads_ours(program, Path(folder))
        ours_reads_python(program, Path(folder))
        both_write_the_same_bytes(program, Path(folder))
    print("interop with the Python package safetensors: passed")


if __name__ == "__main__":
    main()
