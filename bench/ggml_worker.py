# SPDX-License-Identifier: MIT
"""One ggml library as a worker of external_peers.py. It loads the shared libraries that the user has built (ctypes, only
public C functions of ggml) and multiplies as a model does, with ggml_mul_mat in graphs that ggml_graph_compute_with_ctx
runs.

    ggml_worker.py --library libggml-cpu.so[,libggml-base.so] --type 35 --threads T --bytes 1500000000

Weights are -1, 0, 1, quantised by ggml_quantize_chunk and copied until they take `bytes` bytes; graphs take the copies in
turn. The first product is compared with NumPy. measuring.serve() has the commands.
"""
import argparse
import ctypes

import measuring
import numpy

GGML_TYPE_F32 = 0
# A graph has about this many operations, so that starting its threads does not count.
OPERATIONS_PER_GRAPH = 2e10
# Maximum size of all outputs. Large batches are bound by arithmetic and need fewer copies of the weights.
OUTPUT_BYTES = 1 << 29


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Ggml:
    """The functions of ggml.h and ggml-cpu.h that this needs, from whichever of the libraries has them."""

    def __init__(self, paths: list[str]):
        libraries = [ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in reversed(paths)]

        def find(name: str, result, *arguments, optional: bool = False):
            for library in libraries:
                if hasattr(library, name):
                    function = getattr(library, name)
                    function.restype, function.argtypes = result, list(arguments)
                    return function
            if optional:
                return None
            raise SystemExit(f"ggml_worker: none of {', '.join(paths)} has {name}")

        pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
        self.init = find("ggml_init", pointer, InitParams)
        self.free = find("ggml_free", None, pointer)
        self.new_tensor_2d = find("ggml_new_tensor_2d", pointer, pointer, integer, long, long)
        self.get_data = find("ggml_get_data", pointer, pointer)
        self.nbytes = find("ggml_nbytes", ctypes.c_size_t, pointer)
        self.mul_mat = find("ggml_mul_mat", pointer, pointer, pointer, pointer)
        self.new_graph_custom = find("ggml_new_graph_custom", pointer, pointer, ctypes.c_size_t, ctypes.c_bool)
        self.build_forward_expand = find("ggml_build_forward_expand", None, pointer, pointer)
        self.compute = find("ggml_graph_compute_with_ctx", integer, pointer, pointer, integer)
        self.quantize_chunk = find("ggml_quantize_chunk", ctypes.c_size_t, integer, pointer, pointer, long, long, long,
                                   pointer)
        if cpu_init := find("ggml_cpu_init", None, optional=True):
            cpu_init()


class Layer(measuring.Layer):
    def __init__(self, ggml: Ggml, kind: int, threads: int, shape: tuple[int, int, int], beyond: int):
        self.ggml, self.threads = ggml, threads
        outputs, inputs, tokens = shape
        random = numpy.random.default_rng(1)
        weights = random.integers(-1, 2, (outputs, inputs)).astype(numpy.float32)
        x = random.standard_normal((tokens, inputs), dtype=numpy.float32)

        # I2_S asks for a byte per weight and uses a quarter of it; untouched pages take no memory.
        room = outputs * inputs + 4096
        two_bit = outputs * inputs // 4
        copies = max(2, min(beyond // two_bit + 1, OUTPUT_BYTES // (4 * outputs * tokens)))
        per_graph = int(max(1, min(copies, OPERATIONS_PER_GRAPH // (2 * outputs * inputs * tokens))))
        # Each run allocates scratch for quantised activations from the same context and never frees it.
        scratch = 2 * inputs * tokens + (1 << 18)
        self.max_runs = 400
        size = copies * (room + 4 * outputs * tokens + 4096) + 4 * inputs * tokens + (64 << 20) + self.max_runs * scratch
        self.context = ggml.init(InitParams(size, None, False))
        self.x = ggml.new_tensor_2d(self.context, GGML_TYPE_F32, inputs, tokens)
        ctypes.memmove(ggml.get_data(self.x), x.ctypes.data, x.nbytes)
        matrices = [ggml.new_tensor_2d(self.context, kind, inputs, outputs) for _ in range(copies)]
        first = ggml.get_data(matrices[0])
        ggml.quantize_chunk(kind, weights.ctypes.data, first, 0, outputs, inputs, None)
        for matrix in matrices[1:]:
            ctypes.memmove(ggml.get_data(matrix), first, ggml.nbytes(matrices[0]))
        self.graphs = []
        for start in range(0, copies - per_graph + 1, per_graph):
            graph = ggml.new_graph_custom(self.context, 2 * per_graph + 8, False)
            results = [ggml.mul_mat(self.context, matrix, self.x) for matrix in matrices[start:start + per_graph]]
            for result in results:
                ggml.build_forward_expand(graph, result)
            self.graphs.append(graph)
            if start == 0:
                self.first_result = results[0]
        self.products, self.next, self.runs = per_graph, 0, 0

        self.step()
        got = numpy.ctypeslib.as_array((ctypes.c_float * (outputs * tokens)).from_address(ggml.get_data(self.first_result)))
        wanted = x @ weights.T
        self.error = measuring.relative_error(got.reshape(tokens, outputs), wanted)

    def close(self) -> None:
        self.ggml.free(self.context)

    def step(self) -> None:
        self.runs += 1
        if self.runs > self.max_runs:
            raise SystemExit("ggml_worker: too many runs for the context's memory")
        if self.ggml.compute(self.context, self.graphs[self.next], self.threads) != 0:
            raise SystemExit("ggml_worker: ggml_graph_compute_with_ctx failed")
        self.next = (self.next + 1) % len(self.graphs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--type", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    args = parser.parse_args()
    ggml = Ggml(args.library.split(","))
    measuring.serve("ggml", lambda shape: Layer(ggml, args.type, args.threads, shape, args.bytes))


if __name__ == "__main__":
    main()
