// SPDX-License-Identifier: MIT
#include "torch/packed_weight.h"

#include <atomic>

#include "torch/arguments.h"
#include "torch/cuda/cuda.h"
#include "torch/layer.h"
#include "torch/ops.h"
#include "torch/parallel.h"
#include "torch/row_kernels.h"
#include "torch/transposed_weight.h"
#include "trit/torch.h"

namespace trit::torch_layer {
namespace {

// Blocks of 64 KiB (L1-sized reads, enough tasks for every thread), then a fingerprint of the fingerprints.
std::uint64_t fingerprint_of(const torch::Tensor& weight) {
  constexpr std::size_t kBlock = std::size_t{1} << 16;
  const auto* bytes = static_cast<const std::byte*>(weight.const_data_ptr());
  const std::size_t total = weight.nbytes();
  std::vector<std::uint64_t> blocks((total + kBlock - 1) / kBlock);
  TorchParallel().run(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t task) {
    const auto block = static_cast<std::size_t>(task);
    blocks[block] = fingerprint(bytes + block * kBlock, std::min(kBlock, total - block * kBlock), block);
  });
  return fingerprint(blocks.data(), blocks.size() * sizeof(std::uint64_t), total);
}

}  // namespace

void register_packed_weight_class() {
  using Packed = c10::intrusive_ptr<PackedWeight>;
  using Stored = std::tuple<torch::Tensor, torch::Tensor, std::int64_t, std::int64_t>;
  static const auto registered =
      torch::class_<PackedWeight>("trit", "PackedWeight")
          .def(torch::init<torch::Tensor, torch::Tensor, std::int64_t, std::int64_t>(), "",
               {torch::arg("codes"), torch::arg("scale"), torch::arg("in_features"), torch::arg("group") = 0})
          .def_static("from_float", [](const torch::Tensor& weight,
                                       bool per_row) { return PackedWeight::from_float(weight, per_row); })
          .def("codes", [](const Packed& self) { return self->codes(); })
          .def("scale", [](const Packed& self) { return self->scale(); })
          .def("out_features", [](const Packed& self) { return self->out_features(); })
          .def("in_features", [](const Packed& self) { return self->in_features(); })
          .def("group", [](const Packed& self) { return self->group(); })
          .def_pickle(
              [](const Packed& self) {
                return Stored(self->codes(), self->scale(), self->in_features(), self->group());
              },
              [](const Stored& state) {
                return c10::make_intrusive<PackedWeight>(std::get<0>(state), std::get<1>(state),
                                                         std::get<2>(state), std::get<3>(state));
              });
  static_cast<void>(registered);
}

PackedWeight::PackedWeight(torch::Tensor codes, torch::Tensor scale, std::int64_t in_features,
                           std::int64_t group)
    : codes_(std::move(codes)), scale_(std::move(scale)), in_features_(in_features), group_(group) {
  TORCH_CHECK(
      codes_.dim() == 2 && codes_.scalar_type() == torch::kUInt8 && codes_.is_contiguous() &&
          in_features >= 1 && codes_.size(0) >= 1 && codes_.size(1) == packed_row_bytes(in_features),
      "trit: codes must be contiguous uint8 [out_features, ceil(in_features / 4)] with in_features = ",
      in_features, ", found ", codes_.toString(), " ", codes_.sizes());
  TORCH_CHECK(scale_.scalar_type() == torch::kFloat && scale_.is_contiguous(),
              "trit: the weight's scale must be contiguous float32, found ", scale_.toString());
  TORCH_CHECK(scale_.device() == codes_.device(), "trit: the weight's scale must be on ", codes_.device(),
              " like the codes, found ", scale_.device());
  granularity_of(scale_, codes_.size(0), in_features, group);
}

PackedWeight::PackedWeight(torch::Tensor codes, torch::Tensor scale, std::int64_t in_features,
                           std::int64_t group, std::shared_ptr<cuda::PreparedWeight> prepared)
    : PackedWeight(std::move(codes), std::move(scale), in_features, group) {
  cuda_ = std::move(prepared);
}

TernaryView PackedWeight::view() const {
  return ternary_view(out_features(), in_features_, codes_.const_data_ptr<std::uint8_t>(),
                      scale_.const_data_ptr<float>(), scale_.numel(), group_);
}

c10::intrusive_ptr<PackedWeight> PackedWeight::from_float(const torch::Tensor& weight, bool per_row,
                                                          std::int64_t group) {
  const torch::NoGradGuard no_grad;
  const auto detached = weight.detach();
  const auto scale = ops::absmean(detached, per_row, group);
  return c10::make_intrusive<PackedWeight>(ops::ternarize_pack(detached, scale, group), scale, weight.size(1),
                                           group);
}

const PackedLinear& PackedWeight::cpu() const {
  TORCH_CHECK(codes_.is_cpu(), "trit: the packed weight is on ", codes_.device(), ", wanted on the CPU");
  std::call_once(prepared_, [this] {
    TorchParallel parallel;
    cpu_ = std::make_unique<PackedLinear>(cpu_kernels_for(Backend::automatic), parallel, view(),
                                          PanelFormat::two_bit);  // training prepares them at every step
  });
  return *cpu_;
}

const PackedLinear& PackedWeight::cpu_transposed() const {
  TORCH_CHECK(codes_.is_cpu(), "trit: the packed weight is on ", codes_.device(), ", wanted on the CPU");
  std::call_once(transposed_, [this] {
    TorchParallel parallel;
    cpu_transposed_ = std::make_unique<PackedLinear>(
        transposed_weight(cpu_kernels_for(Backend::automatic), parallel, view()));
  });
  return *cpu_transposed_;
}

namespace {

// The trit::nn::GradientAccumulation of this thread, each with a number of its own; 0 without one.
thread_local std::uint64_t current_accumulation = 0;

std::int64_t version_of(const torch::Tensor& weight) {
  return weight.is_inference() ? 0 : static_cast<std::int64_t>(weight._version());
}

}  // namespace

bool PackedWeightCache::holds(const torch::Tensor& weight, bool per_row, std::int64_t group) const {
  return key_ && key_->version == version_of(weight) && key_->data == weight.const_data_ptr() &&
         key_->dtype == weight.scalar_type() && key_->device == weight.device() &&
         weight.sizes() == key_->sizes && key_->per_row == per_row && key_->group == group &&
         key_->accumulation == current_accumulation;
}

void PackedWeightCache::keep(c10::intrusive_ptr<PackedWeight> packed, const torch::Tensor& weight,
                             bool per_row, std::int64_t group) {
  packed_ = std::move(packed);
  key_ = {.version = version_of(weight),
          .data = weight.const_data_ptr(),
          .dtype = weight.scalar_type(),
          .device = weight.device(),
          .sizes = weight.sizes().vec(),
          .per_row = per_row,
          .group = group,
          .accumulation = current_accumulation};
  ++packs_;
}

c10::intrusive_ptr<PackedWeight> PackedWeightCache::get(const torch::Tensor& weight, bool per_row,
                                                        std::int64_t group) {
  const std::lock_guard lock(mutex_);
  if (pinned_) {
    return pinned_;
  }
  if (weight.is_cuda()) {
    return get_cuda(weight, per_row, group);
  }
  if (!weight.is_cpu() || !weight.is_contiguous()) {
    ++packs_;
    return PackedWeight::from_float(weight, per_row, group);
  }
  std::optional<std::uint64_t> now;
  if (holds(weight, per_row, group)) {
    if (current_accumulation != 0) {
      return packed_;
    }
    now = fingerprint_of(weight);
    if (fingerprint_ == now) {
      return packed_;
    }
  }
  keep(PackedWeight::from_float(weight, per_row, group), weight, per_row, group);
  fingerprint_ = now;
  return packed_;
}

c10::intrusive_ptr<PackedWeight> PackedWeightCache::get_cuda(const torch::Tensor& weight, bool per_row,
                                                             std::int64_t group) {
  const bool capturing = cuda::is_capturing();
  const bool trains = torch::GradMode::is_enabled() && weight.requires_grad();
  captured_ = captured_ || (capturing && trains);
  const bool unchanged = current_accumulation != 0 && !capturing && !captured_;
  const bool unseen_writes = !unchanged && (captured_ || trains || weight.is_inference() ||
                                            (weight.is_leaf() && weight.grad().defined()));
  const bool keeps = !unseen_writes && weight.is_contiguous();
  if (keeps && holds(weight, per_row, group)) {
    return packed_;
  }
  auto packed = cuda::pack(weight, per_row, group, keeps);
  if (!keeps) {
    packed_.reset();
    key_.reset();
  }
  // Memory and values of a capture belong to its replays.
  if (!keeps || capturing) {
    ++packs_;
    return packed;
  }
  keep(std::move(packed), weight, per_row, group);
  return packed_;
}

#if !TRIT_TORCH_CUDA
namespace cuda {
bool is_capturing() { return false; }
c10::intrusive_ptr<PackedWeight> pack(const torch::Tensor& weight, bool per_row, std::int64_t group,
                                      bool /*kept*/) {
  return PackedWeight::from_float(weight, per_row, group);
}
}  // namespace cuda

const cuda::PreparedWeight& PackedWeight::cuda() const {
  TORCH_CHECK(false, "trit: this build has no CUDA kernels (TRIT_CUDA)");
}
#endif

void PackedWeightCache::pin(c10::intrusive_ptr<PackedWeight> packed) {
  const std::lock_guard lock(mutex_);
  pinned_ = std::move(packed);
  if (pinned_) {  // the other one would only take memory
    packed_.reset();
    key_.reset();
  }
}

bool PackedWeightCache::is_pinned() const {
  const std::lock_guard lock(mutex_);
  return static_cast<bool>(pinned_);
}

std::int64_t PackedWeightCache::packs() const {
  const std::lock_guard lock(mutex_);
  return packs_;
}

}  // namespace trit::torch_layer

namespace trit::nn {

GradientAccumulation::GradientAccumulation() : outer_(torch_layer::current_accumulation) {
  static std::atomic<std::uint64_t> count{0};
  torch_layer::current_accumulation = ++count;
}

GradientAccumulation::~GradientAccumulation() { torch_layer::current_accumulation = outer_; }

}  // namespace trit::nn
