# SPDX-License-Identifier: MIT
"""bench/bitnet_worker.py with stand-ins for llamafile_sgemm_i2s, and the limits that external_peers.py sets its peers."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"

# Each thread takes every nth row. The blocks of 128 weights are as bench/bitnet_worker.py describes them.
STAND_IN = """
#include <cstdint>
struct Params { int thread, threads; };
extern "C" bool llamafile_sgemm_i2s(const Params* params, int64_t m, int64_t n, int64_t k, const void* a, int64_t, const void* b,
                                    int64_t ldb, void* c, int64_t ldc, const float* scales, const int32_t* sums, float weight_scale) {
  const auto* codes = static_cast<const uint8_t*>(a);
  const auto* q = static_cast<const int8_t*>(b);
  for (int64_t row = FIRST; row < m; row += params->threads) {
    for (int64_t token = 0; token < n; ++token) {
      int32_t sum = 0;
      for (int64_t j = 0; j < k; ++j) {
        const int code = codes[row * k / 4 + j / 128 * 32 + j % 32] >> (6 - j % 128 / 32 * 2) & 3;
        sum += code * q[token * ldb + j];
      }
      static_cast<float*>(c)[token * ldc + row] = static_cast<float>(SUM) * (weight_scale / scales[token]);
    }
  }
  return DONE;
}
"""


def external_peers() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("external_peers", BENCH / "external_peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BitnetWorker(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def answers(self, *lines: str, source: str = STAND_IN, **texts: str) -> subprocess.CompletedProcess:
        """What the worker answers on two threads, with these texts in the stand-in."""
        for name, text in ({"FIRST": "params->thread", "SUM": "sum - sums[token]", "DONE": "true"} | texts).items():
            source = source.replace(name, text)
        (self.folder / "stand_in.cpp").write_text(source)
        library = self.folder / "libstand_in.so"
        subprocess.run([os.environ.get("CXX", "c++"), "-shared", "-fPIC", self.folder / "stand_in.cpp", "-o", library], check=True)
        return subprocess.run([sys.executable, BENCH / "bitnet_worker.py", "--library", library, "--threads", "2", "--bytes", "100000"],
                              input="\n".join(lines) + "\n", capture_output=True, text=True)

    def error_of(self, shape: str, **texts: str) -> float:
        done = self.answers(f"load {shape}", **texts)
        self.assertEqual(done.returncode, 0, done.stderr)
        return float(done.stdout.splitlines()[1].removeprefix("ready "))

    def test_same_integers(self) -> None:
        largest = external_peers().LARGEST_ROUNDING
        for shape in ("128 256 1", "96 384 5"):
            self.assertLess(self.error_of(shape), largest)

    def test_wrong_outputs(self) -> None:
        largest = external_peers().LARGEST_ROUNDING
        self.assertGreater(self.error_of("96 256 3", SUM="sum"), largest)
        self.assertGreater(self.error_of("96 256 3", SUM="sum - sums[token] + (row == 5)"), largest)
        self.assertFalse(self.error_of("96 256 3", FIRST="1 + params->thread") <= largest)  # a row stays NaN

    def test_times(self) -> None:
        done = self.answers("load 128 256 2", "run 0.01")
        self.assertGreater(float(done.stdout.splitlines()[2]), 0)

    def test_refuses(self) -> None:
        self.assertIn("no kernel for this machine", self.answers("load 128 256 1", DONE="false").stderr)
        done = self.answers("load 128 256 1", source="int other = 0;")
        self.assertIn("has llamafile_sgemm_i2s", done.stderr)
        self.assertNotEqual(done.returncode, 0)


class Limits(unittest.TestCase):
    def test_peer_outside_its_limit(self) -> None:
        module = external_peers()
        arguments = types.SimpleNamespace(rounds=1, seconds=0)
        for error, limit, accepted in (("1e-7", 1e-6, True), ("1e-3", 1e-6, False), ("1e-3", 0.02, True), ("nan", 0.02, False)):
            def tell(line: str) -> str:
                return f"ready {error}" if line.startswith("load") else "1.0"

            own = types.SimpleNamespace(name="trit", largest_error=0, threads=1, greeting="avx2",
                                        tell=lambda line: "ready" if line.startswith("load") else "1.0")
            peer = types.SimpleNamespace(name="peer", largest_error=limit, tell=tell)
            with self.subTest(error=error, limit=limit):
                if accepted:
                    self.assertEqual(len(module.measure([own], [peer], "128x256", 1, arguments)), 1)
                else:
                    with self.assertRaisesRegex(SystemExit, "peer 128x256: relative error"):
                        module.measure([own], [peer], "128x256", 1, arguments)


if __name__ == "__main__":
    unittest.main()
