#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs the random tests of src/cuda on a GPU again and again for SECONDS, each run with a seed of its own, on
# three quarters of the cores (the scalar code that every case is compared with runs on the CPU), and prints how
# many cases there were.
#   scripts/gpu_exactness.sh PROGRAM [SECONDS] [FIRST_SEED]
set -euo pipefail
program=$1
seconds=${2:-300}
seed=${3:-1}
workers=$(( $(nproc) * 3 / 4 > 4 ? $(nproc) * 3 / 4 : 4 ))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tests='*RandomRows:*ManyRows:*Decode:*DecodeOfManyRows:*DecodeInChunks:CudaProductTest.Gemm*:CudaGroupsTest.Gemm*:*OddShapes:*EveryOutput:*EverySplitTile:*EveryPersistentTile:*LargestSums:*ScalesThatAreNotNumbers:*Absmean:*TernarizeAndPrepare:*PackWeights:*EveryPlan*'

worker() {  # worker NUMBER
  local run=0
  while [ "$SECONDS" -lt "$seconds" ]; do
    # A run cut off at the end counts the tests that it finished; their order is random, so that all are reached.
    local code=0
    TRIT_TEST_SEED=$(( seed + 1000003 * $1 + run )) TRIT_TEST_FACTOR=4 timeout -k 10 "$(( seconds - SECONDS + 1 ))" \
      "$program" --gtest_filter="$tests" --gtest_shuffle --gtest_random_seed="$(( ($1 * 97 + run) % 99999 + 1 ))" > "$folder/$1.$run.log" 2>&1 || code=$?
    [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || { touch "$folder/failed"; return; }
    run=$(( run + 1 ))
  done
}
for number in $(seq "$workers"); do
  worker "$number" &
done
wait
if [ -e "$folder/failed" ] || grep -q Failure "$folder"/*.log; then
  grep -h -B4 -A4 -E "Failure|TRIT_TEST_SEED" "$folder"/*.log | tail -60 >&2
  echo "gpu_exactness: a case differs from the scalar code" >&2
  exit 1
fi
cat "$folder"/*.log | awk -v seed="$seed" '
  /^\[ RUN / { groups = $4 ~ /GroupsTest/ }
  /^[0-9]+ cases?$/ { total += $1; grouped += groups * $1 }
  END {
    if (total == 0) { print "gpu_exactness: no test ended in this time" > "/dev/stderr"; exit 1 }
    printf "gpu_exactness: %d random cases from seed %d, %d of them with group scales, 0 bits different from " \
           "the scalar code\n", total, seed, grouped
  }'
