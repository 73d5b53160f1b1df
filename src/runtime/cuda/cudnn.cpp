// SPDX-License-Identifier: MIT
//
// Types and constants come from cuDNN's header, the functions from the library that is loaded at run time.
// A build without the header has no convolutions on a GPU.
#include "runtime/cuda/dense.h"
#include "trit/error.h"

#if !__has_include(<cudnn.h>)

namespace trit::runtime::gpu {

std::unique_ptr<Cudnn> make_cudnn(cuda::Stream /*stream*/) {
  throw Error(
      "backend 'cuda': this build has no convolutions, since cudnn.h was not there when it was configured "
      "(https://developer.nvidia.com/cudnn, or the package nvidia-cudnn-cu13 of PyPI)");
}

}  // namespace trit::runtime::gpu

#else

#include <cudnn.h>

#include <array>

#include "runtime/cuda/library.h"
#include "runtime/cuda/resources.h"

namespace trit::runtime::gpu {
namespace {

static_assert(CUDNN_MAJOR == 9, "the library that is loaded is cuDNN 9");

// The last algorithm that adds products; those after it (FFT and Winograd) transform tiles.
constexpr cudnnConvolutionFwdAlgo_t kLastAlgorithm = CUDNN_CONVOLUTION_FWD_ALGO_DIRECT;
constexpr std::size_t kMaxWorkspace = std::size_t{256} << 20;

struct Functions {
  const Library& library;
  // NOLINTBEGIN(readability-identifier-naming): the library's names
  TRIT_LOADED_FUNCTION(cudnnCreate);
  TRIT_LOADED_FUNCTION(cudnnDestroy);
  TRIT_LOADED_FUNCTION(cudnnSetStream);
  TRIT_LOADED_FUNCTION(cudnnGetVersion);
  TRIT_LOADED_FUNCTION(cudnnCreateTensorDescriptor);
  TRIT_LOADED_FUNCTION(cudnnDestroyTensorDescriptor);
  TRIT_LOADED_FUNCTION(cudnnSetTensor4dDescriptor);
  TRIT_LOADED_FUNCTION(cudnnCreateFilterDescriptor);
  TRIT_LOADED_FUNCTION(cudnnDestroyFilterDescriptor);
  TRIT_LOADED_FUNCTION(cudnnSetFilter4dDescriptor);
  TRIT_LOADED_FUNCTION(cudnnCreateConvolutionDescriptor);
  TRIT_LOADED_FUNCTION(cudnnDestroyConvolutionDescriptor);
  TRIT_LOADED_FUNCTION(cudnnSetConvolution2dDescriptor);
  TRIT_LOADED_FUNCTION(cudnnSetConvolutionMathType);
  TRIT_LOADED_FUNCTION(cudnnGetConvolutionForwardAlgorithm_v7);
  TRIT_LOADED_FUNCTION(cudnnGetConvolutionForwardWorkspaceSize);
  TRIT_LOADED_FUNCTION(cudnnConvolutionForward);
  // NOLINTEND(readability-identifier-naming)
};

/// A descriptor and the function that destroys it.
template <typename Descriptor>
class OwnedDescriptor {
 public:
  using Create = cudnnStatus_t (*)(Descriptor*);
  using Destroy = cudnnStatus_t (*)(Descriptor);
  OwnedDescriptor(Create create, Destroy destroy) : destroy_(destroy) {
    check_status(create(&descriptor_), "a descriptor of cuDNN");
  }
  ~OwnedDescriptor() { destroy_(descriptor_); }
  OwnedDescriptor(const OwnedDescriptor&) = delete;
  OwnedDescriptor& operator=(const OwnedDescriptor&) = delete;
  Descriptor get() const { return descriptor_; }

 private:
  Descriptor descriptor_ = nullptr;
  Destroy destroy_;
};

class CudnnPlan final : public ConvolutionPlan {
 public:
  CudnnPlan(const Functions& cudnn, cudnnHandle_t handle, const Convolution& c)
      : cudnn_(cudnn),
        handle_(handle),
        x_(cudnn.cudnnCreateTensorDescriptor, cudnn.cudnnDestroyTensorDescriptor),
        y_(cudnn.cudnnCreateTensorDescriptor, cudnn.cudnnDestroyTensorDescriptor),
        filter_(cudnn.cudnnCreateFilterDescriptor, cudnn.cudnnDestroyFilterDescriptor),
        convolution_(cudnn.cudnnCreateConvolutionDescriptor, cudnn.cudnnDestroyConvolutionDescriptor) {
    check_status(cudnn.cudnnSetTensor4dDescriptor(x_.get(), CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, c.batch,
                                                  c.channels, c.height, c.width),
                 "cudnnSetTensor4dDescriptor");
    check_status(cudnn.cudnnSetTensor4dDescriptor(y_.get(), CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, c.batch,
                                                  c.out_channels, c.out_height, c.out_width),
                 "cudnnSetTensor4dDescriptor");
    check_status(
        cudnn.cudnnSetFilter4dDescriptor(filter_.get(), CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, c.out_channels,
                                         c.channels, c.kernel_height, c.kernel_width),
        "cudnnSetFilter4dDescriptor");
    check_status(
        cudnn.cudnnSetConvolution2dDescriptor(convolution_.get(), c.padding, c.padding, c.stride, c.stride, 1,
                                              1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
        "cudnnSetConvolution2dDescriptor");
    check_status(cudnn.cudnnSetConvolutionMathType(convolution_.get(), CUDNN_FMA_MATH),
                 "cudnnSetConvolutionMathType");
    choose_algorithm();
  }

  std::size_t workspace_bytes() const override { return workspace_bytes_; }
  void run(const float* x, const float* weight, void* workspace, float* y) const override {
    const float one = 1;
    const float zero = 0;
    check_status(
        cudnn_.cudnnConvolutionForward(handle_, &one, x_.get(), x, filter_.get(), weight, convolution_.get(),
                                       algorithm_, workspace, workspace_bytes_, &zero, y_.get(), y),
        "cudnnConvolutionForward");
  }

 private:
  // The heuristics' best algorithm of fp32 products. Nothing is timed, so that every run takes the same
  // one. No transforms: they carry a NaN or an infinity to outputs whose window does not contain it.
  void choose_algorithm() {
    std::array<cudnnConvolutionFwdAlgoPerf_t, 16> found{};
    int count = 0;
    check_status(cudnn_.cudnnGetConvolutionForwardAlgorithm_v7(
                     handle_, x_.get(), filter_.get(), convolution_.get(), y_.get(),
                     static_cast<int>(found.size()), &count, found.data()),
                 "cudnnGetConvolutionForwardAlgorithm_v7");
    for (int i = 0; i < count; ++i) {
      const cudnnConvolutionFwdAlgoPerf_t& candidate = found[static_cast<std::size_t>(i)];
      if (candidate.status == CUDNN_STATUS_SUCCESS && candidate.mathType == CUDNN_FMA_MATH &&
          candidate.algo <= kLastAlgorithm && can_use(candidate.algo)) {
        return;
      }
    }
    if (!can_use(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM)) {
      throw Error("cuda: cuDNN has no fp32 algorithm for a convolution of this model");
    }
  }

  bool can_use(cudnnConvolutionFwdAlgo_t algorithm) {
    algorithm_ = algorithm;
    return cudnn_.cudnnGetConvolutionForwardWorkspaceSize(handle_, x_.get(), filter_.get(),
                                                          convolution_.get(), y_.get(), algorithm,
                                                          &workspace_bytes_) == CUDNN_STATUS_SUCCESS &&
           workspace_bytes_ <= kMaxWorkspace;
  }

  const Functions& cudnn_;
  cudnnHandle_t handle_;
  OwnedDescriptor<cudnnTensorDescriptor_t> x_, y_;
  OwnedDescriptor<cudnnFilterDescriptor_t> filter_;
  OwnedDescriptor<cudnnConvolutionDescriptor_t> convolution_;
  cudnnConvolutionFwdAlgo_t algorithm_ = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
  std::size_t workspace_bytes_ = 0;
};

class LoadedCudnn final : public Cudnn {
 public:
  explicit LoadedCudnn(cuda::Stream stream)
      : library_(kSonames,
                 "It comes from https://developer.nvidia.com/cudnn and with the package nvidia-cudnn-cu13 of "
                 "PyPI; put its folder into LD_LIBRARY_PATH."),
        cudnn_{library_} {
    check_status(cudnn_.cudnnCreate(&handle_), "cudnnCreate");
    check_status(cudnn_.cudnnSetStream(handle_, stream), "cudnnSetStream");
  }
  ~LoadedCudnn() override {
    if (handle_ != nullptr) {
      cudnn_.cudnnDestroy(handle_);
    }
  }
  LoadedCudnn(const LoadedCudnn&) = delete;
  LoadedCudnn& operator=(const LoadedCudnn&) = delete;

  std::string name() const override {
    const std::size_t version = cudnn_.cudnnGetVersion();
    return "cuDNN " + version_text(static_cast<int>(version));
  }
  std::unique_ptr<ConvolutionPlan> plan(const Convolution& convolution) override {
    return std::make_unique<CudnnPlan>(cudnn_, handle_, convolution);
  }

 private:
  static constexpr std::array kSonames = {"libcudnn.so.9"};
  Library library_;
  Functions cudnn_;
  cudnnHandle_t handle_ = nullptr;
};

}  // namespace

std::unique_ptr<Cudnn> make_cudnn(cuda::Stream stream) { return std::make_unique<LoadedCudnn>(stream); }

}  // namespace trit::runtime::gpu

#endif
