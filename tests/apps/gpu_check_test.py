# SPDX-License-Identifier: MIT
"""What scripts/gpu_check.sh refuses before it looks for a GPU: a folder of a build that lacks what it runs."""
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "gpu_check.sh"


class GpuCheckTest(unittest.TestCase):
    def fails(self, *arguments: object, code: int, says: str) -> None:
        result = subprocess.run([str(part) for part in ("bash", SCRIPT, *arguments)], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertIn(says, result.stderr)

    def test_wrong_usage(self) -> None:
        self.fails("--nonsense", code=2, says="--build-dir DIR")
        for option in ("--build-dir", "--data", "--results", "--jobs", "--random-seconds"):
            self.fails(option, code=2, says=f"{option} needs a value")

    def test_a_build_that_lacks_programs(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            self.fails("--build-dir", folder, code=1, says=f"no folder {folder}/bin")
            (folder / "bin").mkdir()
            (folder / "bin" / "trit").touch(mode=0o755)
            self.fails("--build-dir", folder, code=1, says=f"{folder}/bin lacks: cuda_gpu_test cuda_gpu_racecheck_test")
            self.fails("--build-dir", folder, code=1, says="--target gpu_check_programs builds them")
            # One program of LibTorch's half asks for all of them.
            (folder / "bin" / "train_cifar10").touch(mode=0o755)
            self.fails("--build-dir", folder, code=1, says="torch_cuda_test train_gpu_test bench_torch_call")


if __name__ == "__main__":
    unittest.main()
