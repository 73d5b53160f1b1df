#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs the random tests of src/cuda on a GPU in several processes, each with a seed of its own, until there were about 200,000
# cases, and prints how many: the scalar code that each is compared with runs on the CPU, so all cores work.
#   scripts/gpu_exactness.sh PROGRAM [CASES]
set -euo pipefail
program=$1
cases=${2:-200000}
workers=$(( $(nproc) > 2 ? $(nproc) - 2 : 1 ))
per_run=1200  # cases of one run at factor 1
factor=$(( cases / per_run / workers + 1 ))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
pids=()
for worker in $(seq "$workers"); do
  TRIT_TEST_SEED=$(( worker * 7919 + 1 )) TRIT_TEST_FACTOR=$factor "$program" \
    --gtest_filter='*RandomRows:*ManyRows:*Decode:*DecodeOfManyRows:*DecodeInChunks:*OddShapes:CudaProductTest.Gemm*:*EverySplitTile:*EveryPersistentTile:*Absmean:*TernarizeAndPrepare:*LargestSums' \
    > "$folder/$worker.log" 2>&1 &
  pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do
  wait "$pid" || failed=1
done
if [ "$failed" -ne 0 ]; then
  grep -h -B4 -A4 "Failure" "$folder"/*.log | head -40 >&2
  echo "gpu_exactness: a case differs from the scalar code" >&2
  exit 1
fi
awk '/^[0-9]+ cases$/ { total += $1 } END { printf "gpu_exactness: %d random cases, 0 bits different from the scalar code\n", total }' "$folder"/*.log
