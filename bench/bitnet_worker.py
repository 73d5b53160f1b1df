# SPDX-License-Identifier: MIT
"""bitnet.cpp's own I2_S kernels (src/ggml-bitnet-mad.cpp of a checkout) as a worker of external_peers.py.

    bitnet_worker.py --bitnet CHECKOUT --ggml CHECKOUT --threads T --bytes 1500000000

They are compiled here for this machine (c++ -O3 -march=native), with bitnet_kernels.cpp in front. Only the product of int8
activations is timed. Quantising them and scaling the sums is done by bitnet.cpp's llama.cpp and is left out: the times are
lower bounds. measuring.serve() has the commands.
"""
import argparse
import ctypes
import os
import pathlib
import subprocess
import tempfile

import measuring
import numpy

HERE = pathlib.Path(__file__).resolve().parent


def compiled(bitnet: pathlib.Path, ggml: pathlib.Path, folder: str) -> ctypes.CDLL:
    library = pathlib.Path(folder) / "bitnet_kernels.so"
    header = (ggml / "include" / "ggml.h").read_text()
    command = [os.environ.get("CXX", "c++"), "-O3", "-march=native", "-fopenmp", "-fpermissive", "-w", "-shared", "-fPIC",
               f'-DTRIT_BITNET_MAD="{bitnet.resolve() / "src" / "ggml-bitnet-mad.cpp"}"']
    command += ["-DTRIT_GGML_HAS_I2_S"] if "GGML_TYPE_I2_S " in header else []
    command += [f"-I{path}" for path in (bitnet / "include", ggml / "include", ggml / "src", ggml / "src" / "ggml-cpu")]
    subprocess.run([*command, str(HERE / "bitnet_kernels.cpp"), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class Layer(measuring.Layer):
    def __init__(self, library: ctypes.CDLL, threads: int, shape: tuple[int, int, int], beyond: int):
        self.library, self.threads, self.shape = library, threads, shape
        outputs, inputs, tokens = shape
        random = numpy.random.default_rng(1)
        weights = random.integers(-1, 2, (outputs, inputs), dtype=numpy.int8)
        x = random.standard_normal((tokens, inputs), dtype=numpy.float32)
        self.q = numpy.rint(x * (127 / numpy.abs(x).max(axis=1, keepdims=True))).astype(numpy.int8)
        # Blocks of 128: element j at byte j % 32, bits 6 - 2 (j / 32).
        blocks = (weights + 1).astype(numpy.uint8).reshape(outputs, inputs // 128, 4, 32)
        one = (blocks << numpy.array([6, 4, 2, 0], dtype=numpy.uint8)[:, None]).sum(2, dtype=numpy.uint8)
        self.copies = numpy.empty((max(2, beyond // one.size + 1), one.size), dtype=numpy.uint8)
        self.copies[:] = one.reshape(-1)
        self.sums = numpy.full((tokens, outputs), numpy.nan, dtype=numpy.float32)
        self.next = 0
        self.step()
        got = self.sums - self.q.sum(1, dtype=numpy.int64)[:, None]
        wanted = self.q.astype(numpy.float64) @ weights.T.astype(numpy.float64)
        self.error = measuring.relative_error(got, wanted)

    def step(self) -> None:
        outputs, inputs, tokens = self.shape
        address = [ctypes.c_void_p(array.ctypes.data) for array in (self.copies[self.next], self.q, self.sums)]
        self.library.i2s_sums(ctypes.c_int64(tokens), ctypes.c_int64(outputs), ctypes.c_int64(inputs), *address, self.threads)
        self.next = (self.next + 1) % len(self.copies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bitnet", type=pathlib.Path, required=True, help="checkout of microsoft/BitNet")
    parser.add_argument("--ggml", type=pathlib.Path, required=True, help="checkout of ggml, or llama.cpp's folder ggml")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(args.bitnet, args.ggml, folder)
    measuring.serve("bitnet.cpp", lambda shape: Layer(library, args.threads, shape, args.bytes))


if __name__ == "__main__":
    main()
