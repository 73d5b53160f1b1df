// SPDX-License-Identifier: MIT
//
// The part of cuDNN's C interface that is used is declared here: its headers need not be where this is built.
#include <array>
#include <utility>

#include "runtime/cuda/dense.h"
#include "runtime/cuda/library.h"
#include "runtime/cuda/resources.h"

namespace trit::runtime::gpu {
namespace {

// Values of cudnn_ops.h and cudnn_cnn.h.
constexpr int kNchw = 0;
constexpr int kFloat = 0;
constexpr int kCrossCorrelation = 1;
constexpr int kFmaMath = 3;
constexpr int kImplicitPrecompGemm = 1;
constexpr int kDirect =
    3;  // the last algorithm that adds products; FFT and Winograd (4 to 7) transform tiles
constexpr std::size_t kLargestWorkspace = std::size_t{256} << 20;

using Handle = struct cudnnContext*;
using Descriptor = void*;

struct Performance {
  int algorithm;
  int status;
  float time;
  std::size_t memory;
  int determinism;
  int math;
  int reserved[3];
};

struct Functions {
  explicit Functions(const Library& library) {
    library.load(create, "cudnnCreate");
    library.load(destroy, "cudnnDestroy");
    library.load(set_stream, "cudnnSetStream");
    library.load(version, "cudnnGetVersion");
    library.load(create_tensor, "cudnnCreateTensorDescriptor");
    library.load(destroy_tensor, "cudnnDestroyTensorDescriptor");
    library.load(set_tensor, "cudnnSetTensor4dDescriptor");
    library.load(create_filter, "cudnnCreateFilterDescriptor");
    library.load(destroy_filter, "cudnnDestroyFilterDescriptor");
    library.load(set_filter, "cudnnSetFilter4dDescriptor");
    library.load(create_convolution, "cudnnCreateConvolutionDescriptor");
    library.load(destroy_convolution, "cudnnDestroyConvolutionDescriptor");
    library.load(set_convolution, "cudnnSetConvolution2dDescriptor");
    library.load(set_math, "cudnnSetConvolutionMathType");
    library.load(find, "cudnnGetConvolutionForwardAlgorithm_v7");
    library.load(workspace, "cudnnGetConvolutionForwardWorkspaceSize");
    library.load(forward, "cudnnConvolutionForward");
  }
  int (*create)(Handle*);
  int (*destroy)(Handle);
  int (*set_stream)(Handle, cuda::Stream);
  std::size_t (*version)();
  int (*create_tensor)(Descriptor*);
  int (*destroy_tensor)(Descriptor);
  int (*set_tensor)(Descriptor, int, int, int, int, int, int);
  int (*create_filter)(Descriptor*);
  int (*destroy_filter)(Descriptor);
  int (*set_filter)(Descriptor, int, int, int, int, int, int);
  int (*create_convolution)(Descriptor*);
  int (*destroy_convolution)(Descriptor);
  int (*set_convolution)(Descriptor, int, int, int, int, int, int, int, int);
  int (*set_math)(Descriptor, int);
  int (*find)(Handle, Descriptor, Descriptor, Descriptor, Descriptor, int, int*, Performance*);
  int (*workspace)(Handle, Descriptor, Descriptor, Descriptor, Descriptor, int, std::size_t*);
  int (*forward)(Handle, const void*, Descriptor, const void*, Descriptor, const void*, Descriptor, int,
                 void*, std::size_t, const void*, Descriptor, void*);
};

/// A descriptor and the function that destroys it.
class OwnedDescriptor {
 public:
  OwnedDescriptor(int (*create)(Descriptor*), int (*destroy)(Descriptor)) : destroy_(destroy) {
    check_status(create(&descriptor_), "a descriptor of cuDNN");
  }
  ~OwnedDescriptor() { destroy_(descriptor_); }
  OwnedDescriptor(const OwnedDescriptor&) = delete;
  OwnedDescriptor& operator=(const OwnedDescriptor&) = delete;
  Descriptor get() const { return descriptor_; }

 private:
  Descriptor descriptor_ = nullptr;
  int (*destroy_)(Descriptor);
};

class CudnnPlan final : public ConvolutionPlan {
 public:
  CudnnPlan(const Functions& cudnn, Handle handle, const Convolution& c)
      : cudnn_(cudnn),
        handle_(handle),
        x_(cudnn.create_tensor, cudnn.destroy_tensor),
        y_(cudnn.create_tensor, cudnn.destroy_tensor),
        filter_(cudnn.create_filter, cudnn.destroy_filter),
        convolution_(cudnn.create_convolution, cudnn.destroy_convolution) {
    check_status(cudnn.set_tensor(x_.get(), kNchw, kFloat, c.batch, c.channels, c.height, c.width),
                 "cudnnSetTensor4dDescriptor");
    check_status(
        cudnn.set_tensor(y_.get(), kNchw, kFloat, c.batch, c.out_channels, c.out_height, c.out_width),
        "cudnnSetTensor4dDescriptor");
    check_status(cudnn.set_filter(filter_.get(), kFloat, kNchw, c.out_channels, c.channels, c.kernel_height,
                                  c.kernel_width),
                 "cudnnSetFilter4dDescriptor");
    check_status(cudnn.set_convolution(convolution_.get(), c.padding, c.padding, c.stride, c.stride, 1, 1,
                                       kCrossCorrelation, kFloat),
                 "cudnnSetConvolution2dDescriptor");
    check_status(cudnn.set_math(convolution_.get(), kFmaMath), "cudnnSetConvolutionMathType");
    choose_algorithm();
  }

  std::size_t workspace_bytes() const override { return workspace_bytes_; }
  void run(const float* x, const float* weight, void* workspace, float* y) const override {
    const float one = 1;
    const float zero = 0;
    check_status(cudnn_.forward(handle_, &one, x_.get(), x, filter_.get(), weight, convolution_.get(),
                                algorithm_, workspace, workspace_bytes_, &zero, y_.get(), y),
                 "cudnnConvolutionForward");
  }

 private:
  // The heuristics' best that keeps to fp32 products: no timing, so that every run takes the same one. No
  // transforms: they carry a NaN or an infinity to outputs whose window does not hold it.
  void choose_algorithm() {
    std::array<Performance, 16> found{};
    int count = 0;
    check_status(cudnn_.find(handle_, x_.get(), filter_.get(), convolution_.get(), y_.get(),
                             static_cast<int>(found.size()), &count, found.data()),
                 "cudnnGetConvolutionForwardAlgorithm_v7");
    for (int i = 0; i < count; ++i) {
      const Performance& candidate = found[static_cast<std::size_t>(i)];
      if (candidate.status == 0 && candidate.math == kFmaMath && candidate.algorithm <= kDirect &&
          needs(candidate.algorithm)) {
        return;
      }
    }
    if (!needs(kImplicitPrecompGemm)) {
      throw Error("cuda: cuDNN has no fp32 algorithm for a convolution of this model");
    }
  }

  bool needs(int algorithm) {
    algorithm_ = algorithm;
    return cudnn_.workspace(handle_, x_.get(), filter_.get(), convolution_.get(), y_.get(), algorithm,
                            &workspace_bytes_) == 0 &&
           workspace_bytes_ <= kLargestWorkspace;
  }

  const Functions& cudnn_;
  Handle handle_;
  OwnedDescriptor x_, y_, filter_, convolution_;
  int algorithm_ = kImplicitPrecompGemm;
  std::size_t workspace_bytes_ = 0;
};

class LoadedCudnn final : public Cudnn {
 public:
  explicit LoadedCudnn(cuda::Stream stream)
      : library_(kSonames,
                 "It comes from https://developer.nvidia.com/cudnn and with the package nvidia-cudnn-cu13 of "
                 "PyPI; put its folder into LD_LIBRARY_PATH."),
        functions_(library_) {
    check_status(functions_.create(&handle_), "cudnnCreate");
    check_status(functions_.set_stream(handle_, stream), "cudnnSetStream");
  }
  ~LoadedCudnn() override {
    if (handle_ != nullptr) {
      functions_.destroy(handle_);
    }
  }
  LoadedCudnn(const LoadedCudnn&) = delete;
  LoadedCudnn& operator=(const LoadedCudnn&) = delete;

  std::string name() const override {
    const std::size_t version = functions_.version();
    return "cuDNN " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100);
  }
  std::unique_ptr<ConvolutionPlan> plan(const Convolution& convolution) override {
    return std::make_unique<CudnnPlan>(functions_, handle_, convolution);
  }

 private:
  static constexpr std::array kSonames = {"libcudnn.so.9"};
  Library library_;
  Functions functions_;
  Handle handle_ = nullptr;
};

}  // namespace

std::unique_ptr<Cudnn> make_cudnn(cuda::Stream stream) { return std::make_unique<LoadedCudnn>(stream); }

}  // namespace trit::runtime::gpu
