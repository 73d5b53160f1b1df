// SPDX-License-Identifier: MIT
//
// The part of cuBLAS's C interface that is used is declared here: its headers need not be where this is
// built.
#include <array>

#include "runtime/cuda/dense.h"
#include "runtime/cuda/library.h"
#include "runtime/cuda/resources.h"

namespace trit::runtime::gpu {
namespace {

// Values of cublas_api.h and library_types.h.
constexpr int kNotTransposed = 0;
constexpr int kTransposed = 1;
constexpr int kFloat32 = 0;
constexpr int kComputePedantic = 69;
constexpr int kDefaultAlgorithm = -1;
// Given to cuBLAS once: it would allocate its own while a graph is captured.
constexpr std::size_t kWorkspaceBytes = std::size_t{4} << 20;

using Handle = struct cublasContext*;

class LoadedCublas final : public Cublas {
 public:
  explicit LoadedCublas(cuda::Stream stream)
      : library_(kSonames,
                 "It comes with the CUDA toolkit and with the package nvidia-cublas of PyPI; put its folder "
                 "into LD_LIBRARY_PATH."),
        workspace_(allocate_device(kWorkspaceBytes, "cuBLAS's workspace")) {
    int (*create)(Handle*) = nullptr;
    int (*set_stream)(Handle, cuda::Stream) = nullptr;
    int (*set_workspace)(Handle, void*, std::size_t) = nullptr;
    library_.load(create, "cublasCreate_v2");
    library_.load(destroy_, "cublasDestroy_v2");
    library_.load(set_stream, "cublasSetStream_v2");
    library_.load(set_workspace, "cublasSetWorkspace_v2");
    library_.load(gemm_, "cublasGemmEx");
    library_.load(version_, "cublasGetVersion_v2");
    check_status(create(&handle_), "cublasCreate");
    check_status(set_stream(handle_, stream), "cublasSetStream");
    check_status(set_workspace(handle_, workspace_.get(), kWorkspaceBytes), "cublasSetWorkspace");
  }
  ~LoadedCublas() override {
    if (handle_ != nullptr) {
      destroy_(handle_);
    }
  }
  LoadedCublas(const LoadedCublas&) = delete;
  LoadedCublas& operator=(const LoadedCublas&) = delete;

  std::string name() const override {
    int version = 0;
    check_status(version_(handle_, &version), "cublasGetVersion");
    return "cuBLAS " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100);
  }

  void linear(std::int64_t rows, std::int64_t in, std::int64_t out, const float* x, const float* weight,
              float* y) override {
    const float one = 1;
    const float zero = 0;
    // Column-major: y^T [out, rows] = weight [out, in] * x^T.
    check_status(gemm_(handle_, kTransposed, kNotTransposed, static_cast<int>(out), static_cast<int>(rows),
                       static_cast<int>(in), &one, weight, kFloat32, static_cast<int>(in), x, kFloat32,
                       static_cast<int>(in), &zero, y, kFloat32, static_cast<int>(out), kComputePedantic,
                       kDefaultAlgorithm),
                 "cublasGemmEx");
  }

 private:
  static constexpr std::array kSonames = {"libcublas.so.13", "libcublas.so.12"};
  Library library_;
  DeviceMemory workspace_;
  Handle handle_ = nullptr;
  int (*destroy_)(Handle) = nullptr;
  int (*version_)(Handle, int*) = nullptr;
  int (*gemm_)(Handle, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
               const void*, void*, int, int, int, int) = nullptr;
};

}  // namespace

std::unique_ptr<Cublas> make_cublas(cuda::Stream stream) { return std::make_unique<LoadedCublas>(stream); }

}  // namespace trit::runtime::gpu
