#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# On a machine with an NVIDIA GPU (compute capability 8.0 or newer) and nvcc: builds the kernels, checks their machine code,
# runs every test of src/cuda on the GPU and, with fewer cases, under compute-sanitizer; then many more random cases, and the
# benchmark against cuBLASLt. Stops at the first failure. Writes bench/results/<gpu>.json and docs/images/cuda-<gpu>.svg.
#   scripts/gpu_check.sh [JOBS]
# It needs cmake, ninja and the libraries of the torch-free half (`make setup` brings them).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:/usr/local/cuda/bin:$PATH"
jobs=${1:-$(nproc)}
test=build-cuda/bin/cuda_gpu_test

command -v nvidia-smi > /dev/null || { echo "gpu_check: no nvidia-smi here: is there a driver?" >&2; exit 1; }
nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader

echo "=== machine code"
python3 scripts/check_gpu_code.py
echo "=== build"
cmake --preset cuda
cmake --build --preset cuda --parallel "$jobs" --target cuda_gpu_test runtime_cuda_model_test bench_cuda
# For racecheck, which does not follow __syncwarp.
cmake --preset cuda -B build-racecheck -DCMAKE_CUDA_FLAGS=-DTRIT_RACECHECK=1
cmake --build build-racecheck --parallel "$jobs" --target cuda_gpu_test
echo "=== tests"
# 77 is "no GPU": here that is a failure like any other.
"$test"
build-cuda/bin/runtime_cuda_model_test

if ! command -v compute-sanitizer > /dev/null; then
  echo "gpu_check: compute-sanitizer is not on the PATH; its checks were not run" >&2
  exit 1
fi
for tool in memcheck racecheck synccheck; do
  echo "=== compute-sanitizer $tool"
  program=$test
  [ "$tool" != racecheck ] || program=build-racecheck/bin/cuda_gpu_test
  TRIT_TEST_ROUNDS=4 compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" \
    --gtest_filter='-*BeyondOneInt32Sum*:*LongRows*'
done

echo "=== random cases"
scripts/gpu_exactness.sh "$test"
echo "=== benchmark"
name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr 'A-Z ' 'a-z-')
build-cuda/bin/bench_cuda --json "bench/results/$name.json"
python3 bench/plot_cuda.py "bench/results/$name.json"
echo "gpu_check: all passed"
