// SPDX-License-Identifier: MIT
//
// Types and constants come from cuBLAS's header, the functions from the library that is loaded at run time.
#include <cublas_v2.h>

#include <array>

#include "runtime/cuda/dense.h"
#include "runtime/cuda/library.h"
#include "runtime/cuda/resources.h"

namespace trit::runtime::gpu {
namespace {

// Given to cuBLAS once: it would allocate its own while a graph is captured.
constexpr std::size_t kWorkspaceBytes = std::size_t{4} << 20;

// The header overloads this one for old code.
using GemmEx =
    decltype(static_cast<cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int,
                                            int, const void*, const void*, cudaDataType, int, const void*,
                                            cudaDataType, int, const void*, void*, cudaDataType, int,
                                            cublasComputeType_t, cublasGemmAlgo_t)>(&::cublasGemmEx));

struct Functions {
  const Library& library;
  // NOLINTBEGIN(readability-identifier-naming): the library's names
  TRIT_LOADED_FUNCTION(cublasCreate_v2);
  TRIT_LOADED_FUNCTION(cublasDestroy_v2);
  TRIT_LOADED_FUNCTION(cublasSetStream_v2);
  TRIT_LOADED_FUNCTION(cublasSetWorkspace_v2);
  GemmEx cublasGemmEx = library.load<GemmEx>("cublasGemmEx");
  TRIT_LOADED_FUNCTION(cublasGetVersion_v2);
  // NOLINTEND(readability-identifier-naming)
};

class LoadedCublas final : public Cublas {
 public:
  explicit LoadedCublas(cuda::Stream stream)
      : library_(kSonames,
                 "It comes with the CUDA toolkit and with the package nvidia-cublas of PyPI; put its folder "
                 "into LD_LIBRARY_PATH."),
        cublas_{library_},
        workspace_(allocate_device(kWorkspaceBytes, "cuBLAS's workspace")) {
    check_status(cublas_.cublasCreate_v2(&handle_), "cublasCreate");
    check_status(cublas_.cublasSetStream_v2(handle_, stream), "cublasSetStream");
    check_status(cublas_.cublasSetWorkspace_v2(handle_, workspace_.get(), kWorkspaceBytes),
                 "cublasSetWorkspace");
  }
  ~LoadedCublas() override {
    if (handle_ != nullptr) {
      cublas_.cublasDestroy_v2(handle_);
    }
  }
  LoadedCublas(const LoadedCublas&) = delete;
  LoadedCublas& operator=(const LoadedCublas&) = delete;

  std::string name() const override {
    int version = 0;
    check_status(cublas_.cublasGetVersion_v2(handle_, &version), "cublasGetVersion");
    return "cuBLAS " + version_text(version);
  }

  void linear(std::int64_t rows, std::int64_t in, std::int64_t out, const float* x, const float* weight,
              float* y) override {
    const float one = 1;
    const float zero = 0;
    // Column-major: y^T [out, rows] = weight [out, in] * x^T.
    check_status(
        cublas_.cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(out), static_cast<int>(rows),
                             static_cast<int>(in), &one, weight, CUDA_R_32F, static_cast<int>(in), x,
                             CUDA_R_32F, static_cast<int>(in), &zero, y, CUDA_R_32F, static_cast<int>(out),
                             CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
  }

 private:
  static constexpr std::array kSonames = {"libcublas.so.13", "libcublas.so.12"};
  Library library_;
  Functions cublas_;
  DeviceMemory workspace_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace

std::unique_ptr<Cublas> make_cublas(cuda::Stream stream) { return std::make_unique<LoadedCublas>(stream); }

}  // namespace trit::runtime::gpu
