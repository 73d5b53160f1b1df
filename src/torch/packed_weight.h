// SPDX-License-Identifier: MIT
//
// A ternary weight, packed once and used until the float weight changes.
#pragma once

#include <torch/custom_class.h>
#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "trit/linear.h"

namespace trit::torch_layer {

namespace cuda {
class PreparedWeight;
}

/// Codes and scales in the stored form (format.h), and the kernels' layout of them, prepared at its first
/// use. Immutable: a changed weight gets a new one, so a backward sees the codes of its forward.
/// TorchScript class "trit.PackedWeight".
class PackedWeight final : public torch::CustomClassHolder {
 public:
  /// codes uint8 [N, ceil(K / 4)], scale float32 [1] or [N], or [N, groups_of(K, group)].
  PackedWeight(torch::Tensor codes, torch::Tensor scale, std::int64_t in_features, std::int64_t group = 0);
  /// The same with the GPU's layout of it, which is there already.
  PackedWeight(torch::Tensor codes, torch::Tensor scale, std::int64_t in_features, std::int64_t group,
               std::shared_ptr<cuda::PreparedWeight> prepared);
  /// Quantises a float weight [N, K] of any floating-point type.
  static c10::intrusive_ptr<PackedWeight> from_float(const torch::Tensor& weight, bool per_row,
                                                     std::int64_t group = 0);

  const torch::Tensor& codes() const { return codes_; }
  const torch::Tensor& scale() const { return scale_; }
  std::int64_t out_features() const { return codes_.size(0); }
  std::int64_t in_features() const { return in_features_; }
  /// Inputs that share a weight scale; 0 without group scales.
  std::int64_t group() const { return group_; }
  /// The stored form, where it lies.
  TernaryView view() const;
  /// The layout of this machine's fastest kernels (TRIT_BACKEND); CPU only. Thread-safe.
  const PackedLinear& cpu() const;
  /// The transposed weight [K, N] likewise, for gradients in int8; without group scales only. Its scale is this
  /// weight's, or 1 where each output row has its own.
  const PackedLinear& cpu_transposed() const;
  /// The layout of the GPU's kernels, ready for use on the current stream; on a GPU only. Thread-safe.
  const cuda::PreparedWeight& cuda() const;

 private:
  torch::Tensor codes_;
  torch::Tensor scale_;
  std::int64_t in_features_;
  std::int64_t group_;
  mutable std::once_flag prepared_;
  mutable std::once_flag transposed_;
  mutable std::unique_ptr<PackedLinear> cpu_;
  mutable std::unique_ptr<PackedLinear> cpu_transposed_;
  mutable std::shared_ptr<cuda::PreparedWeight> cuda_;
};

/// Makes the class known to the dispatcher, once. Called by each file that registers an operator which takes
/// one: the order in which files register is not defined.
void register_packed_weight_class();

/// The PackedWeight of one module's weight.
///
/// A tensor's version counter counts in-place operations, but not writes through `.data`, `.data = other`,
/// module.to(dtype) or raw pointers, and inference tensors have none. So a hit needs the same (version,
/// address, dtype, shape, scale granularity) and the same 64-bit fingerprint of the bytes: one read of the
/// weight where packing needs two and the kernels' layout besides (0.31 against 0.77 ms for 512 x 4096 on one
/// Zen 4 core). The fingerprint is taken from a version's second use on: a training loop without gradient
/// accumulation changes the weight at every step and never pays for it.
///
/// On a GPU a fingerprint would make the host wait, so the key alone decides there, and only where nothing
/// writes past it: LibTorch's SGD steps through `.data`. So a weight is packed at each pass that records
/// gradients for it or while it has a gradient (a pass of training packs once anyway), and kept between
/// passes of inference; a write through `.data` or a raw pointer between those must bump the version
/// (torch::autograd::impl::bump_version). Replaying a CUDA graph moves no version either: a recorded pass
/// that is captured packs inside the graph, at each replay, and from then on the calls outside of it pack
/// too; one of inference captures the packed weight as it is. Inference tensors, without a version, are
/// packed at each call, and so are weights on other devices.
///
/// Within a trit::nn::GradientAccumulation the key alone decides on every device, and an entry is used within
/// the one that made it.
class PackedWeightCache {
 public:
  /// The packed form of `weight` as it is now. Thread-safe.
  c10::intrusive_ptr<PackedWeight> get(const torch::Tensor& weight, bool per_row, std::int64_t group = 0);
  /// From now on get() returns this; null: the packed form of its argument again.
  void pin(c10::intrusive_ptr<PackedWeight> packed);
  bool is_pinned() const;
  /// How often get() has packed (for tests).
  std::int64_t packs() const;

 private:
  struct Key {
    std::int64_t version;
    const void* data;
    torch::ScalarType dtype;
    torch::Device device;
    std::vector<std::int64_t> sizes;
    bool per_row;
    std::int64_t group;
    std::uint64_t accumulation;  // 0 outside of any
  };
  bool holds(const torch::Tensor& weight, bool per_row, std::int64_t group) const;
  void keep(c10::intrusive_ptr<PackedWeight> packed, const torch::Tensor& weight, bool per_row,
            std::int64_t group);
  c10::intrusive_ptr<PackedWeight> get_cuda(const torch::Tensor& weight, bool per_row, std::int64_t group);

  mutable std::mutex mutex_;
  std::optional<Key> key_;  // of packed_
  bool captured_ = false;   // a pass with gradients is in a CUDA graph
  std::optional<std::uint64_t> fingerprint_;
  c10::intrusive_ptr<PackedWeight> packed_;
  c10::intrusive_ptr<PackedWeight> pinned_;
  std::int64_t packs_ = 0;
};

}  // namespace trit::torch_layer
