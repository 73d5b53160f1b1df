# SPDX-License-Identifier: MIT
"""The I2_S products of bitnet.cpp alone, behind standard input, for external_peers.py.

    bitnet_worker.py --bitnet CHECKOUT --ggml CHECKOUT              --threads T --bytes 1500000000
    bitnet_worker.py --library libggml-cpu.so[,libggml-base.so]     --threads T --bytes 1500000000

--bitnet takes the kernels of src/ggml-bitnet-mad.cpp, compiled here behind bitnet_kernels.cpp with the machine's
instructions (c++ -O3 -march=native). Its time is that of the sums: codes times int8 activations.
--library takes llamafile_sgemm_i2s (tinyBLAS) from the ggml libraries of a build of bitnet.cpp, and calls it through
bitnet_tinyblas.cpp. Its time is that of fp32 outputs: sums, minus the activations' sum, times the scales.

Neither includes the quantisation of the activations: both are lower bounds. Weights come in turn from copies that fill
`bytes`. The first product is compared with numpy's product of the same integers. measuring.serve() has the commands.
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


def compiled(source: str, folder: str, *options: str) -> ctypes.CDLL:
    library = pathlib.Path(folder) / f"{source}.so"
    command = [os.environ.get("CXX", "c++"), "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", *options]
    subprocess.run([*command, str(HERE / source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def address(array: numpy.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class MadKernels:
    """Sums of codes times activations, neither centred nor scaled. Several tokens go four at a time (PARALLEL_SIZE)."""

    def __init__(self, bitnet: pathlib.Path, ggml: pathlib.Path, folder: str):
        options = ["-fpermissive", "-w", f'-DTRIT_BITNET_MAD="{bitnet.resolve() / "src" / "ggml-bitnet-mad.cpp"}"']
        if "GGML_TYPE_I2_S " in (ggml / "include" / "ggml.h").read_text():
            options.append("-DTRIT_GGML_HAS_I2_S")
        options += [f"-I{path}" for path in (bitnet / "include", ggml / "include", ggml / "src", ggml / "src" / "ggml-cpu")]
        self.library = compiled("bitnet_kernels.cpp", folder, *options)

    def multiply(self, layer: "Layer", weights: numpy.ndarray) -> None:
        if layer.shape[2] > 1 and layer.shape[2] % 4 != 0:
            raise SystemExit("bitnet_worker: the I2_S kernels take 1 token or a multiple of 4")
        outputs, inputs, tokens = (ctypes.c_int64(size) for size in layer.shape)
        self.library.i2s_sums(tokens, outputs, inputs, address(weights), address(layer.q), address(layer.y), layer.threads)

    def products(self, layer: "Layer") -> numpy.ndarray:
        return layer.y - layer.q_sums.astype(numpy.float64)[:, None]


class TinyBlas:
    """Outputs as ggml_mul_mat has them."""

    def __init__(self, paths: list[str], folder: str):
        libraries = [ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in reversed(paths)]
        found = [library for library in libraries if hasattr(library, "llamafile_sgemm_i2s")]
        if not found:
            raise SystemExit(f"bitnet_worker: none of {', '.join(paths)} has llamafile_sgemm_i2s")
        self.function = ctypes.cast(found[0].llamafile_sgemm_i2s, ctypes.c_void_p)
        self.outputs = compiled("bitnet_tinyblas.cpp", folder, "-std=c++20").i2s_outputs
        self.outputs.restype = ctypes.c_bool

    def multiply(self, layer: "Layer", weights: numpy.ndarray) -> None:
        outputs, inputs, tokens = (ctypes.c_int64(size) for size in layer.shape)
        if not self.outputs(self.function, tokens, outputs, inputs, address(weights), address(layer.q),
                            address(layer.token_scales), address(layer.q_sums), address(layer.y), layer.threads):
            raise SystemExit("bitnet_worker: llamafile_sgemm_i2s has no kernel for this machine")

    def products(self, layer: "Layer") -> numpy.ndarray:
        return layer.y * layer.token_scales.astype(numpy.float64)[:, None]


class Layer(measuring.Layer):
    def __init__(self, kernels: MadKernels | TinyBlas, threads: int, shape: tuple[int, int, int], beyond: int):
        self.kernels, self.threads, self.shape = kernels, threads, shape
        outputs, inputs, tokens = shape
        random = numpy.random.default_rng(1)
        weights = random.integers(-1, 2, (outputs, inputs), dtype=numpy.int8)
        x = random.standard_normal((tokens, inputs), dtype=numpy.float32)
        self.token_scales = 127 / numpy.abs(x).max(axis=1)
        self.q = numpy.rint(x * self.token_scales[:, None]).astype(numpy.int8)
        self.q_sums = self.q.sum(1, dtype=numpy.int32)
        # Blocks of 128: element j at byte j % 32, bits 6 - 2 (j / 32).
        blocks = (weights + 1).astype(numpy.uint8).reshape(outputs, inputs // 128, 4, 32)
        one = (blocks << numpy.array([6, 4, 2, 0], dtype=numpy.uint8)[:, None]).sum(2, dtype=numpy.uint8)
        self.copies = numpy.empty((max(2, beyond // one.size + 1), one.size), dtype=numpy.uint8)
        self.copies[:] = one.reshape(-1)
        self.y = numpy.full((tokens, outputs), numpy.nan, dtype=numpy.float32)
        self.next = 0
        self.step()
        wanted = self.q.astype(numpy.float64) @ weights.T.astype(numpy.float64)
        self.error = measuring.relative_error(kernels.products(self), wanted)

    def step(self) -> None:
        self.kernels.multiply(self, self.copies[self.next])
        self.next = (self.next + 1) % len(self.copies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bitnet", type=pathlib.Path, help="checkout of microsoft/BitNet")
    parser.add_argument("--ggml", type=pathlib.Path, help="checkout of ggml, or llama.cpp's folder ggml")
    parser.add_argument("--library", help="bitnet.cpp's ggml libraries, comma-separated")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    args = parser.parse_args()
    if not args.library and not (args.bitnet and args.ggml):
        parser.error("name --library, or --bitnet and --ggml")
    with tempfile.TemporaryDirectory() as folder:
        kernels = TinyBlas(args.library.split(","), folder) if args.library else MadKernels(args.bitnet, args.ggml, folder)
    measuring.serve("bitnet.cpp", lambda shape: Layer(kernels, args.threads, shape, args.bytes))


if __name__ == "__main__":
    main()
