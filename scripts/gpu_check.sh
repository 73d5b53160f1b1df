#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# On a machine with an NVIDIA GPU (compute capability 8.0 or newer): builds everything for it, checks the kernels' machine code, runs
# every test that needs a GPU, the kernels' ones also under compute-sanitizer, many more random cases, the benchmarks and the
# training job. Stops at the first failure. Writes bench/results/<gpu>.json and docs/images/cuda-<gpu>.svg.
#
#   scripts/gpu_check.sh [--quick] [--build-dir DIR] [--data DIR] [--results DIR] [--jobs N] [--random-seconds N]
#
#   --quick          minutes instead of half an hour: fewer random cases, benchmark rounds and sizes (the results say so)
#   --build-dir DIR  programs of a build that is there already (of the preset cuda-torch, or cuda), instead of building; that
#                    needs the target gpu_check_programs beside the default ones, and a missing program is an error at the start
#   --data DIR       CIFAR-10; without it the folder that `make data` fills, or else the drawn data set
#   --results DIR    folder for the results and the picture, instead of bench/results and docs/images
#   --jobs N         processes of the build (default: all cores)
#   --random-seconds N  of random cases beside the scalar code (default: 300, --quick: 20)
# Building needs nvcc, cmake, ninja and the libraries of `make setup`; without LibTorch what needs it is left out, and said so.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:/usr/local/cuda/bin:$PATH"
quick='' build='' data='' results='' jobs=$(nproc) seconds=''
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1 ;;
    --build-dir | --data | --results | --jobs | --random-seconds)
      [ $# -ge 2 ] || { echo "gpu_check: $1 needs a value" >&2; exit 2; }
      case $1 in
        --build-dir) build=$2 ;;
        --data) data=$2 ;;
        --results) results=$2 ;;
        --jobs) jobs=$2 ;;
        --random-seconds) seconds=$2 ;;
      esac
      shift ;;
    *) sed -n '/^#   scripts/,/^# Building/p' "$0" >&2; exit 2 ;;
  esac
  shift
done

sanitized=4 random=300 tuned=1,8,16,32,64,128,256,1024,4096
timing=()
if [ -n "$quick" ]; then
  sanitized=2 random=20 tuned=1,8,16,64,256,1024
  timing=(--rounds 3 --settle 20 --tokens 1,16,64,256,1024,4096)
fi

seconds=${seconds:-$random}

# Every program that is run; those with torch where the build has one of them, then all.
programs="cuda_gpu_test cuda_gpu_racecheck_test runtime_cuda_kernels_gpu_test runtime_cuda_model_test bench_cuda trit"
torch_programs="torch_cuda_test train_gpu_test train_cifar10 bench_torch_call"
with_torch=
require_programs() {
  local program missing=
  for program in $torch_programs; do
    if [ -x "$build/bin/$program" ]; then with_torch=1; fi
  done
  for program in $programs ${with_torch:+$torch_programs}; do
    [ -x "$build/bin/$program" ] || missing="$missing $program"
  done
  if [ -n "$missing" ]; then
    echo "gpu_check: $build/bin lacks:$missing" >&2
    echo "gpu_check: cmake --build $build --target gpu_check_programs builds them" >&2
    exit 1
  fi
  [ -n "$with_torch" ] || echo "left out: $torch_programs (this build has no LibTorch)"
}
if [ -n "$build" ]; then
  [ -d "$build/bin" ] || { echo "gpu_check: no folder $build/bin: --build-dir names the folder of a build" >&2; exit 1; }
  require_programs
fi

command -v nvidia-smi > /dev/null || { echo "gpu_check: no nvidia-smi here: is there a driver?" >&2; exit 1; }
command -v compute-sanitizer > /dev/null || { echo "gpu_check: compute-sanitizer (CUDA toolkit) is not on the PATH" >&2; exit 1; }
nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader
name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr 'A-Z ' 'a-z-')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step() { echo "=== $1 ($SECONDS s)"; }

if [ -z "$build" ]; then
  step "machine code"
  python3 scripts/check_gpu_code.py
  step build
  preset=cuda
  if python3 -c 'import torch' 2> /dev/null; then preset=cuda-torch; fi
  build=build-$preset
  cmake --preset $preset
  cmake --build --preset $preset --parallel "$jobs" --target gpu_check_programs
  require_programs
fi

step tests
# 77 is "no GPU": here that is a failure like any other.
"$build/bin/cuda_gpu_test"
"$build/bin/runtime_cuda_kernels_gpu_test"
"$build/bin/runtime_cuda_model_test"
if [ -n "$with_torch" ]; then
  "$build/bin/torch_cuda_test"
  "$build/bin/train_gpu_test"
  python3 tests/apps/train/gpu_test.py "$build/bin/train_cifar10"
fi

step "compute-sanitizer: memcheck, racecheck, synccheck"
sanitize() {  # sanitize TOOL PROGRAM [OPTIONS]
  local tool=$1
  shift
  TRIT_TEST_ROUNDS=$sanitized compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" > "$work/$tool.log" 2>&1 || touch "$work/$tool.failed"
}
reduced=--gtest_filter='-*BeyondOneInt32Sum*:*LongRows*'
sanitize memcheck "$build/bin/cuda_gpu_test" "$reduced" &
# racecheck does not follow __syncwarp: a build in which every lane arrives at the barriers (TRIT_RACECHECK).
sanitize racecheck "$build/bin/cuda_gpu_racecheck_test" "$reduced" &
sanitize synccheck "$build/bin/cuda_gpu_test" "$reduced" &
wait
for tool in memcheck racecheck synccheck; do
  grep -E "SUMMARY" "$work/$tool.log" | sed "s/^/$tool: /" || true
  if [ -e "$work/$tool.failed" ]; then
    tail -60 "$work/$tool.log" >&2
    echo "gpu_check: compute-sanitizer $tool failed" >&2
    exit 1
  fi
done

step "random cases"
scripts/gpu_exactness.sh "$build/bin/cuda_gpu_test" "$seconds"

step "products and row kernels beside cuBLASLt"
"$build/bin/bench_cuda" --json "$work/kernels.json" "${timing[@]}"
step "the table's plans beside the autotuner's"
# Off: what it finds is not kept for this user.
TRIT_CUDA_TUNING=off "$build/bin/trit" bench --backend cuda --tune --json \
  --shapes 2560x2560,6912x2560,2560x6912,4096x4096,14336x4096,4096x14336,8192x8192,28672x8192 \
  --tokens "$tuned" > "$work/tuning.json"
if [ -n "$with_torch" ]; then
  step "host time of a layer's call"
  "$build/bin/bench_torch_call" | tee "$work/calls.jsonl"
fi
if [ -n "$with_torch" ]; then
  step "training: 20 epochs, bf16"
  dataset=(--dataset cifar10)
  if [ -n "$data" ]; then
    dataset+=(--data "$data")
  elif [ ! -d "${TRIT_CIFAR10:-${XDG_CACHE_HOME:-$HOME/.cache}/trit/cifar10}" ]; then
    echo "no CIFAR-10 here (make data): the drawn data set instead"
    dataset=(--dataset drawn)
  fi
  begin=$(date +%s.%N)
  "$build/bin/train_cifar10" "${dataset[@]}" --device cuda --precision bf16 --epochs 20 --out "$work/run"
  echo "$begin $(date +%s.%N)" > "$work/training.seconds"
  step "the trained model, packed"
  for backend in cuda auto; do
    "$build/bin/trit" eval "$work/run/model.safetensors" "${dataset[@]}" --backend $backend --json > "$work/eval-$backend.json"
  done
fi

if command -v ncu > /dev/null; then
  step "counters of the kernels"
  scripts/gpu_profile.py --build-dir "$build" --json "$work/profile.json" || echo "no counters: see scripts/gpu_profile.py --help"
fi

step results
file=${results:-bench/results}/$name.json
mkdir -p "$(dirname "$file")"
python3 bench/gpu_results.py "$work" "$file" ${quick:+--quick}
if python3 -c 'import matplotlib' 2> /dev/null; then
  python3 bench/plot_cuda.py "$file" ${results:+--picture "$results/cuda-$name.svg"}
else
  echo "no picture: Python has no matplotlib here"
fi
echo "gpu_check: all passed ($SECONDS s)"
