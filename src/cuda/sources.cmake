# SPDX-License-Identifier: MIT
# The sources of the GPU kernels, for the library and for the tests that run them on the CPU.
set(trit_cuda_sources
  backward/dequantize_rows.cu
  backward/gradient_input.cu
  backward/gradient_weight.cu
  backward/norm_backward.cu
  backward/prepare_transposed.cu
  backward/quantize_gradient.cu
  backward/transpose_int8.cu
  common/tensor_map.cu
  decode/groups.cu
  decode/kernel.cu
  decode/plan.cu
  decode_one/direct.cu
  decode_one/plan.cu
  decode_one/ring.cu
  gemm_sm80/kernel.cu
  gemm_sm80/plan.cu
  gemm_sm90/gemm.cu
  gemm_sm90/plan.cu
  product.cu
  rows/absmean.cu
  rows/group_scales.cu
  rows/norm_quant.cu
  rows/norm_quant_groups.cu
  rows/pack_groups.cu
  rows/pack_weights.cu
  rows/prepare.cu
  rows/ternarize_pack.cu)
# wgmma exists on compute capability 9.0 alone.
set(trit_cuda_sm90_sources
  gemm_sm90/float.cu
  gemm_sm90/groups.cu
  gemm_sm90/int8.cu
  gemm_sm90/persistent_128.cu
  gemm_sm90/persistent_256.cu
  gemm_sm90/split.cu)
