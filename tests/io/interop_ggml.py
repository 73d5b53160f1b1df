#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Q2_0, TQ1_0 and TQ2_0 against ggml's own code: interop_ggml.py [--trit build/bin/trit] [--folder .cache/ggml].

The Python package gguf has no Q2_0. The source of ggml is in PyPI's llama-cpp-python, of which only the library ggml-base
is built (a minute; the folder keeps it). ggml opens the files that `trit convert` writes and decodes their blocks; the
bytes equal those of its own quantiser; and files that it quantises are read back. Needs a download of 77 MB and a C
compiler.
"""
import ctypes
import subprocess
import sys
import tarfile
from pathlib import Path

from interop_library import download, load_library, main

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
TYPES = {"tq1_0": 34, "tq2_0": 35, "q2_0": 42}


def build_ggml(folder: Path) -> Path:
    """The library ggml-base, built if it does not exist."""
    library = folder / "build" / "libggml-base.so"
    if library.exists():
        return library
    archive = folder / f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
    if not archive.exists():
        download(PACKAGE, VERSION, folder, "--no-binary")
    inside = f"{archive.name.removesuffix('.tar.gz')}/vendor/llama.cpp/ggml/"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, [member for member in tar if member.name.startswith(inside)], filter="data")
    (folder / inside / "ggml.pc.in").touch()  # missing in the package; CMake copies it
    print("interop: building ggml-base", flush=True)
    tools = Path(sys.executable).parent
    cmake = tools / "cmake"
    subprocess.run([cmake, "-S", folder / inside, "-B", folder / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                    f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-DBUILD_SHARED_LIBS=ON", "-DGGML_CCACHE=OFF",
                    "-DGGML_BUILD_TESTS=OFF", "-DGGML_BUILD_EXAMPLES=OFF",
                    f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder / 'build'}"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([cmake, "--build", folder / "build", "--target", "ggml-base"], check=True)
    return library


class Parameters(ctypes.Structure):
    """gguf_init_params."""
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]


class Ggml:
    """The functions of ggml that the tests need."""

    def __init__(self, library: Path):
        handle, text, index = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
        self.library = load_library(library, {
            "gguf_init_from_file": (handle, text, Parameters), "gguf_get_n_tensors": (index, handle),
            "gguf_find_tensor": (index, handle, text), "gguf_get_tensor_type": (ctypes.c_int, handle, index),
            "gguf_get_tensor_offset": (ctypes.c_size_t, handle, index), "gguf_get_data_offset": (ctypes.c_size_t, handle),
            "gguf_free": (None, handle)})

    def row_function(self, name: str):
        function = getattr(self.library, name)
        function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        return function

    def decode(self, kind: str, data, count: int):
        import numpy
        values = numpy.empty(count, numpy.float32)
        self.row_function(f"dequantize_row_{kind}")(data.ctypes.data, values.ctypes.data, count)
        return values

    def quantize(self, kind: str, values, size: int):
        import numpy
        values = numpy.ascontiguousarray(values, numpy.float32)
        data = numpy.zeros(size, numpy.uint8)
        self.row_function(f"quantize_row_{kind}_ref")(values.ctypes.data, data.ctypes.data, values.size)
        return data

    def tensors(self, path: Path, names: list[str]) -> dict:
        """name -> (ggml type, offset in the file); None if ggml refuses the file."""
        context = self.library.gguf_init_from_file(str(path).encode(), Parameters(True, None))
        if not context:
            raise AssertionError(f"ggml cannot read {path}")
        try:
            if self.library.gguf_get_n_tensors(context) != len(names):
                raise AssertionError(f"ggml finds {self.library.gguf_get_n_tensors(context)} tensors in {path}")
            found = {}
            for name in names:
                index = self.library.gguf_find_tensor(context, name.encode())
                found[name] = (self.library.gguf_get_tensor_type(context, index),
                               self.library.gguf_get_data_offset(context)
                               + self.library.gguf_get_tensor_offset(context, index))
            return found
        finally:
            self.library.gguf_free(context)


def tests(ggml: Ggml) -> type:
    import numpy
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    from interop_files import Folder, pack_rows, save_own, trit

    bytes_of_blocks = {"tq1_0": (256, 54), "tq2_0": (256, 66), "q2_0": (64, 18)}

    class AgainstGgml(Folder):
        def test_it_decodes_what_we_write(self):
            for kind, (block, size) in bytes_of_blocks.items():
                for rows, blocks in ((1, 1), (3, 5), (16, 8)):
                    with self.subTest(kind=kind, rows=rows, blocks=blocks):
                        t = self.ternary(rows, block * blocks)
                        t[:, ::block] = 1  # no block without a weight: its absmax is the scale
                        scales = self.random.uniform(1e-3, 2, rows).astype(numpy.float32)
                        half = scales.astype(numpy.float16).astype(numpy.float32)[:, None]
                        save_own(self.root / "own", {"w.weight": (t, scales)}, {"norm": numpy.ones(7, numpy.float32)})
                        trit("convert", self.root / "own", self.root / "x", "--to", "gguf", "--type", kind)
                        found = ggml.tensors(self.root / "x", ["w.weight", "norm"])
                        number, offset = found["w.weight"]
                        self.assertEqual(number, TYPES[kind])
                        bytes_there = numpy.fromfile(self.root / "x", numpy.uint8)
                        data = bytes_there[offset:offset + rows * blocks * size].copy()
                        numpy.testing.assert_array_equal(ggml.decode(kind, data, t.size).reshape(t.shape), t * half)
                        # The very bytes that its own quantiser makes of t * scale.
                        numpy.testing.assert_array_equal(ggml.quantize(kind, t * half, data.size), data)

        def test_group_scales(self):
            """Q2_0 with a scale for each 64 inputs: its blocks decode to t * scale, and are those of its quantiser."""
            t = self.ternary(9, 640)
            t[:, ::64] = 1
            scales = self.random.uniform(1e-3, 2, (9, 10)).astype(numpy.float16)
            values = t * numpy.repeat(scales.astype(numpy.float32), 64, 1)
            save_own(self.root / "own", {"w.weight": (t, scales)}, {}, group=64)
            trit("convert", self.root / "own", self.root / "x", "--to", "gguf", "--type", "q2_0")
            number, offset = ggml.tensors(self.root / "x", ["w.weight"])["w.weight"]
            self.assertEqual(number, TYPES["q2_0"])
            data = numpy.fromfile(self.root / "x", numpy.uint8)[offset:offset + 9 * 10 * 18].copy()
            numpy.testing.assert_array_equal(ggml.decode("q2_0", data, t.size).reshape(t.shape), values)
            numpy.testing.assert_array_equal(ggml.quantize("q2_0", values, data.size), data)

        def test_we_read_what_it_quantizes(self):
            for kind, (block, size) in bytes_of_blocks.items():
                with self.subTest(kind=kind):
                    t = self.ternary(6, 4 * block)
                    t[:, ::block] = -1
                    data = ggml.quantize(kind, t * numpy.float32(0.25), t.size // block * size)
                    path = self.root / "x"
                    writer = GGUFWriter(path, "bitnet")
                    # gguf has no Q2_0: it gets the shape of the bytes, and the type is corrected in the file.
                    writer.add_tensor("w.weight", data.reshape(6, -1).view(numpy.int8))
                    writer.write_header_to_file()
                    writer.write_kv_data_to_file()
                    writer.write_tensors_to_file()
                    writer.close()
                    whole = bytearray(path.read_bytes())
                    at = whole.index(b"w.weight") + len(b"w.weight") + 4
                    whole[at:at + 8] = t.shape[1].to_bytes(8, "little")
                    whole[at + 16:at + 20] = TYPES[kind].to_bytes(4, "little")
                    path.write_bytes(whole)
                    self.assertEqual(ggml.tensors(path, ["w.weight"])["w.weight"][0], TYPES[kind])
                    trit("convert", path, self.root / "own", "--to", "trit")
                    tensors = load_file(self.root / "own")
                    numpy.testing.assert_array_equal(tensors["w.weight"], pack_rows(t))
                    numpy.testing.assert_array_equal(tensors["w.weight_scale"], [0.25])

    return AgainstGgml


if __name__ == "__main__":
    main(__doc__.splitlines()[0], "ggml", lambda folder: tests(Ggml(build_ggml(folder))))
