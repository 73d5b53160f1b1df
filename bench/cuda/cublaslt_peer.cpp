// SPDX-License-Identifier: MIT
#include "cuda/cublaslt_peer.h"

namespace trit::bench {
namespace {

void check_lt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw Error(std::string("cuBLASLt: ") + what + ": " + cublasLtGetStatusString(status));
  }
}

cudaDataType_t data_type(Element type) {
  return type == Element::bfloat16 ? CUDA_R_16BF : (type == Element::int8 ? CUDA_R_8I : CUDA_R_8F_E4M3);
}

}  // namespace

CublasLt::CublasLt() { check_lt(cublasLtCreate(&handle_), "cublasLtCreate"); }
CublasLt::~CublasLt() { cublasLtDestroy(handle_); }
std::string CublasLt::version() const {
  const std::size_t version = cublasLtGetVersion();
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

// Column-major, as the library expects: outputs [N, M] = weights [K, N]ᵀ · tokens [K, M].
PeerProduct::PeerProduct(const CublasLt& library, Element type, std::int64_t tokens,
                         std::int64_t out_features, std::int64_t in_features)
    : library_(library), integer_(type == Element::int8) {
  constexpr int kAlgorithms = 16;
  const auto rows = static_cast<std::uint64_t>(out_features);
  const auto inputs = static_cast<std::uint64_t>(in_features);
  const auto columns = static_cast<std::uint64_t>(tokens);
  check_lt(cublasLtMatmulDescCreate(&operation_, integer_ ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                    integer_ ? CUDA_R_32I : CUDA_R_32F),
           "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_lt(
      cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
      "transpose");
  check_lt(cublasLtMatrixLayoutCreate(&weights_, data_type(type), inputs, rows, in_features), "layout");
  check_lt(cublasLtMatrixLayoutCreate(&tokens_, data_type(type), inputs, columns, in_features), "layout");
  check_lt(
      cublasLtMatrixLayoutCreate(&outputs_, integer_ ? CUDA_R_32I : CUDA_R_16BF, rows, columns, out_features),
      "layout");
  cublasLtMatmulPreference_t preference = nullptr;
  check_lt(cublasLtMatmulPreferenceCreate(&preference), "preference");
  const std::size_t workspace = library.workspace_bytes();
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                       sizeof workspace);
  found_.resize(kAlgorithms);
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(library.handle(), operation_, weights_, tokens_, outputs_, outputs_,
                                     preference, kAlgorithms, found_.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  found_.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<std::size_t>(count) : 0);
}

PeerProduct::~PeerProduct() {
  cublasLtMatrixLayoutDestroy(outputs_);
  cublasLtMatrixLayoutDestroy(tokens_);
  cublasLtMatrixLayoutDestroy(weights_);
  cublasLtMatmulDescDestroy(operation_);
}

bool PeerProduct::launch(int algorithm, const void* q, const void* t, void* y, cudaStream_t stream) const {
  const float one = 1.0F;
  const float zero = 0.0F;
  const std::int32_t integer_one = 1;
  const std::int32_t integer_zero = 0;
  const void* const alpha = integer_ ? static_cast<const void*>(&integer_one) : &one;
  const void* const beta = integer_ ? static_cast<const void*>(&integer_zero) : &zero;
  return cublasLtMatmul(library_.handle(), operation_, alpha, t, weights_, q, tokens_, beta, y, outputs_, y,
                        outputs_, &found_[static_cast<std::size_t>(algorithm)].algo, library_.workspace(),
                        library_.workspace_bytes(), stream) == CUBLAS_STATUS_SUCCESS;
}

}  // namespace trit::bench
