// SPDX-License-Identifier: MIT
//
// cuBLASLt as a peer: y [M, N] = q [M, K] · t [N, K]ᵀ with bfloat16, int8 (int32 out) or e4m3 (bfloat16 out)
// operands, by the fastest of the algorithms that its heuristic proposes.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/data.h"
#include "cuda/gpu.h"

namespace trit::bench {

class CublasLt {
 public:
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_.data(); }
  std::size_t workspace_bytes() const { return workspace_.size(); }
  std::string version() const;

 private:
  cublasLtHandle_t handle_ = nullptr;
  DeviceBuffer<std::uint8_t> workspace_{std::size_t{64} << 20};
};

class PeerProduct {
 public:
  PeerProduct(const CublasLt& library, Element type, std::int64_t tokens, std::int64_t out_features,
              std::int64_t in_features);
  ~PeerProduct();
  PeerProduct(const PeerProduct&) = delete;
  PeerProduct& operator=(const PeerProduct&) = delete;

  /// 0 where the library has no algorithm for the shape and types.
  int algorithms() const { return static_cast<int>(found_.size()); }
  /// False where the library refuses.
  bool launch(int algorithm, const void* q, const void* t, void* y, cudaStream_t stream) const;
  static std::size_t element_bytes(Element type) { return type == Element::bfloat16 ? 2 : 1; }

 private:
  const CublasLt& library_;
  bool integer_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t weights_ = nullptr, tokens_ = nullptr, outputs_ = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> found_;
};

}  // namespace trit::bench
