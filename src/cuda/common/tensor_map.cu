// SPDX-License-Identifier: MIT
#include "cuda/common/tensor_map.cuh"

#include <string>

#include "trit/error.h"

#if defined(__CUDACC__)
#include <cudaTypedefs.h>
#endif

namespace trit::cuda {
namespace {

void check_matrix(const MatrixDescription& matrix, const char* name) {
  const auto address = reinterpret_cast<std::uintptr_t>(matrix.data);
  if (address % 16 != 0 || matrix.stride_bytes % 16 != 0 || matrix.stride_bytes <= 0 ||
      matrix.stride_bytes >= std::int64_t{1} << 40 || matrix.rows < 1 || matrix.row_elements < 1) {
    throw Error(std::string("cuda: ") + name + " [" + std::to_string(matrix.rows) + ", " +
                std::to_string(matrix.row_elements) + "] starts " + std::to_string(address % 16) +
                " bytes behind a multiple of 16 and has rows " + std::to_string(matrix.stride_bytes) +
                " bytes apart; both must be multiples of 16");
  }
}

#if defined(__CUDACC__)
// The driver's own function, asked for at run time: the library is not linked against libcuda, which a
// machine without a GPU does not have.
PFN_cuTensorMapEncodeTiled_v12000 encode_function() {
  static const PFN_cuTensorMapEncodeTiled_v12000 function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess
               ? reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found)
               : nullptr;
  }();
  return function;
}
#endif

}  // namespace

#if defined(__CUDACC__)
TensorMap make_tensor_map(const MatrixDescription& matrix, const char* name) {
  check_matrix(matrix, name);
  const PFN_cuTensorMapEncodeTiled_v12000 encode = encode_function();
  if (encode == nullptr) {
    throw Error(std::string("cuda: ") + name +
                ": the driver has no cuTensorMapEncodeTiled; it must be of CUDA 12.0 or later");
  }
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.row_elements),
                               static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(matrix.stride_bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(128 / matrix.element_bytes),
                             static_cast<cuuint32_t>(matrix.box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUtensorMapDataType type =
      matrix.element_bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16;
  CUtensorMap map;
  const CUresult result = encode(&map, type, 2, const_cast<void*>(matrix.data), sizes, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(std::string("cuda: ") + name + " [" + std::to_string(matrix.rows) + ", " +
                std::to_string(matrix.row_elements) + "]: cuTensorMapEncodeTiled failed with error " +
                std::to_string(static_cast<int>(result)));
  }
  return map;
}
#else
TensorMap make_tensor_map(const MatrixDescription& matrix, const char* name) {
  check_matrix(matrix, name);
  return matrix;
}
#endif

}  // namespace trit::cuda
