# SPDX-License-Identifier: MIT
"""bench/bitnet_worker.py with stand-ins for bitnet.cpp's functions, and the limits that external_peers.py sets its peers."""

import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"

# The blocks of 128 weights are as bench/bitnet_worker.py describes them.
DOT = """
#include <cstddef>
#include <cstdint>
static int32_t dot(int64_t k, const void* row, const void* activations) {
  const auto* codes = static_cast<const uint8_t*>(row);
  const auto* q = static_cast<const int8_t*>(activations);
  int32_t sum = 0;
  for (int64_t j = 0; j < k; ++j) {
    sum += (codes[j / 128 * 32 + j % 32] >> (6 - j % 128 / 32 * 2) & 3) * q[j];
  }
  return sum;
}
"""
# Each thread takes every nth row.
TINY_BLAS = DOT + """
struct Params { int thread, threads; };
extern "C" bool llamafile_sgemm_i2s(const Params* params, int64_t m, int64_t n, int64_t k, const void* a, int64_t, const void* b,
                                    int64_t ldb, void* c, int64_t ldc, const float* scales, const int32_t* sums, float weight_scale) {
  for (int64_t row = FIRST; row < m; row += params->threads) {
    for (int64_t token = 0; token < n; ++token) {
      const int32_t sum = dot(k, static_cast<const uint8_t*>(a) + row * k / 4, static_cast<const int8_t*>(b) + token * ldb);
      static_cast<float*>(c)[token * ldc + row] = static_cast<float>(SUM) * (weight_scale / scales[token]);
    }
  }
  return DONE;
}
"""
MAD = DOT + """
#define COL_BLOCK_SIZE 4
void ggml_vec_dot_i2_i8_s_1x1(int n, float* s, size_t, const void* x, size_t, const void* y, size_t, int rows) {
  for (int row = 0; row < rows; ++row) s[row] = static_cast<float>(dot(n, static_cast<const uint8_t*>(x) + row * n / 4, y));
}
void ggml_vec_dot_i2_i8_s_Nx1(int n, float* s, size_t bs, const void* x, size_t, const void* y, size_t by, int tokens) {
  for (int token = 0; token < tokens; ++token) {
    s[token * bs] = static_cast<float>(dot(n, x, static_cast<const int8_t*>(y) + token * by));
  }
}
"""


def external_peers() -> types.ModuleType:
    sys.path.insert(0, str(BENCH))  # as when the script is run: it imports its neighbours
    return importlib.import_module("external_peers")


class BitnetWorker(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def worker(self, options: list, lines: tuple[str, ...]) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, BENCH / "bitnet_worker.py", *options, "--threads", "2", "--bytes", "100000"],
                              input="\n".join(lines) + "\n", capture_output=True, text=True)

    def tiny_blas(self, *lines: str, source: str = TINY_BLAS, **texts: str) -> subprocess.CompletedProcess:
        """What the worker answers on two threads, with these texts in the stand-in."""
        for name, text in ({"FIRST": "params->thread", "SUM": "sum - sums[token]", "DONE": "true"} | texts).items():
            source = source.replace(name, text)
        (self.folder / "stand_in.cpp").write_text(source)
        library = self.folder / "libstand_in.so"
        subprocess.run([os.environ.get("CXX", "c++"), "-shared", "-fPIC", self.folder / "stand_in.cpp", "-o", library], check=True)
        return self.worker(["--library", library], lines)

    def mad(self, *lines: str) -> subprocess.CompletedProcess:
        for folder in ("src", "include"):
            (self.folder / folder).mkdir(exist_ok=True)
        (self.folder / "include" / "ggml.h").write_text("enum ggml_type : int {};\n")
        (self.folder / "src" / "ggml-bitnet-mad.cpp").write_text(MAD)
        return self.worker(["--bitnet", self.folder, "--ggml", self.folder], lines)

    def error_of(self, done: subprocess.CompletedProcess) -> float:
        self.assertEqual(done.returncode, 0, done.stderr)
        return float(done.stdout.splitlines()[1].removeprefix("ready "))

    def test_same_integers(self) -> None:
        largest = external_peers().MAX_ROUNDING
        for shape in ("128 256 1", "96 384 8"):
            with self.subTest(shape=shape):
                self.assertLess(self.error_of(self.tiny_blas(f"load {shape}")), largest)
                self.assertEqual(self.error_of(self.mad(f"load {shape}")), 0)

    def test_wrong_outputs(self) -> None:
        largest = external_peers().MAX_ROUNDING
        self.assertGreater(self.error_of(self.tiny_blas("load 96 256 3", SUM="sum")), largest)
        self.assertGreater(self.error_of(self.tiny_blas("load 96 256 3", SUM="sum - sums[token] + (row == 5)")), largest)
        # The first row stays NaN.
        self.assertFalse(self.error_of(self.tiny_blas("load 96 256 3", FIRST="1 + params->thread")) <= largest)

    def test_times(self) -> None:
        done = self.tiny_blas("load 128 256 2", "run 0.01")
        self.assertGreater(float(done.stdout.splitlines()[2]), 0)

    def test_refuses(self) -> None:
        for done, message in ((self.tiny_blas("load 128 256 1", DONE="false"), "no kernel for this machine"),
                              (self.tiny_blas("load 128 256 1", source="int other = 0;"), "has llamafile_sgemm_i2s"),
                              (self.mad("load 128 256 3"), "1 token or a multiple of 4")):
            with self.subTest(message=message):
                self.assertIn(message, done.stderr)
                self.assertNotEqual(done.returncode, 0)


class Limits(unittest.TestCase):
    def test_peer_outside_its_limit(self) -> None:
        module = external_peers()
        arguments = types.SimpleNamespace(rounds=1, seconds=0)
        for error, limit, accepted in (("1e-7", 1e-6, True), ("1e-3", 1e-6, False), ("1e-3", 0.02, True), ("nan", 0.02, False)):
            def tell(line: str) -> str:
                return f"ready {error}" if line.startswith("load") else "1.0"

            own = types.SimpleNamespace(name="trit", max_error=0, threads=1, greeting="avx2",
                                        tell=lambda line: "ready" if line.startswith("load") else "1.0")
            peer = types.SimpleNamespace(name="peer", max_error=limit, tell=tell)
            with self.subTest(error=error, limit=limit):
                if accepted:
                    self.assertEqual(len(module.measure([own], [peer], "128x256", 1, arguments)), 1)
                else:
                    with self.assertRaisesRegex(SystemExit, "peer 128x256: relative error"):
                        module.measure([own], [peer], "128x256", 1, arguments)


if __name__ == "__main__":
    unittest.main()
