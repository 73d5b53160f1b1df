// SPDX-License-Identifier: MIT
//
// trit for LibTorch: the only header of this project that includes torch.
//
//   trit::nn::BitLinear fc(trit::nn::BitLinearOptions(4096, 512).bias(false));
//   auto y = fc(x);                              // integer kernels forward, straight-through backward
//
// Operators are registered under the namespace "trit" (src/torch/ops.cpp): schema, CPU, Meta, autograd and
// autocast, so that another device is one more registration.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "trit/format.h"
#include "trit/quantize.h"

namespace trit::torch_layer {
class PackedWeightCache;
}

namespace trit::nn {

/// RMSNorm over the last dimension: y = x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467).
struct RMSNormOptions {
  explicit RMSNormOptions(int64_t features) : features_(features) {}
  TORCH_ARG(int64_t, features);
  TORCH_ARG(double, eps) = 1e-6;
};

class RMSNormImpl : public torch::nn::Cloneable<RMSNormImpl> {
 public:
  explicit RMSNormImpl(int64_t features) : RMSNormImpl(RMSNormOptions(features)) {}
  explicit RMSNormImpl(const RMSNormOptions& options);
  void reset() override;
  void reset_parameters();
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& x);

  RMSNormOptions options;
  torch::Tensor weight;  // [features], ones
};
TORCH_MODULE(RMSNorm);

/// Which products of a layer's backward take their gradient in int8 (trit/gradient.h, docs/training.md). The
/// forward pass is the same.
enum class Backward {
  exact,       // dX = dY · (beta t) and dW = dYᵀ · (s q) in floats
  int8_input,  // dX with dY in int8 per token
  int8_all     // dX likewise, and dW with s dY in int8 per output
};

struct BitLinearOptions {
  BitLinearOptions(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}
  TORCH_ARG(int64_t, in_features);
  TORCH_ARG(int64_t, out_features);
  TORCH_ARG(bool, bias) = true;
  TORCH_ARG(trit::Norm, norm) = trit::Norm::rms;
  TORCH_ARG(double, eps) = 1e-6;
  TORCH_ARG(trit::ScaleGranularity, scale) = trit::ScaleGranularity::tensor;
  /// Inputs that share a weight scale with ScaleGranularity::group, a multiple of 32; else 0.
  TORCH_ARG(int64_t, group) = 0;

 public:
  /// Both at once: .scale(trit::ScaleGranularity::group, 128).
  BitLinearOptions& scale(trit::ScaleGranularity granularity, int64_t inputs) {
    return scale(granularity).group(inputs);
  }
  /// Warm-up: x + lambda * (quant(x) - x) on both operands with one float product while lambda < 1; 1 runs
  /// the integer kernels.
  TORCH_ARG(double, lambda) = 1.0;
  TORCH_ARG(Backward, backward) = Backward::exact;
  /// Of gradients in int8: at random, right on average, with LibTorch's generator of the device. False: to
  /// nearest, and the same gradients at every run.
  TORCH_ARG(bool, stochastic_rounding) = false;
};

/// The ternary linear layer of BitNet b1.58 (arXiv:2402.17764), a drop-in for torch::nn::Linear: RMSNorm,
/// int8 absmax activations per token, absmean weights in {-1, 0, +1}, straight-through gradients. The weights
/// have one scale, one per output row, or one per group of inputs of a row (Backward::exact).
///
/// With lambda = 1, per row of x: q, s = int8(RMSNorm(x)), y = ((q · tᵀ) * s) * beta + bias, the same bits on
/// every machine (quantize.h, docs/numerics.md; with group scales y is the sum of the groups' products with
/// their betas). Backward: dX = dY · (beta t), dW = dYᵀ · (s q), scales constant, through the norm by its
/// Jacobian; differentiating twice is an error. With Backward::int8_input or int8_all these products take dY
/// in int8, and a NaN or an infinity in dY makes its token's dX and its outputs' dW NaN. y has the dtype of x,
/// under autocast the autocast dtype; weight, bias and norm.weight are used in float32.
///
/// The packed weight is kept between calls and checked against the weight's bytes at each, so that any change
/// of the weight is seen, through `.data` or a raw pointer too. An optimizer that writes through raw pointers
/// should bump the version (torch::autograd::impl::bump_version): it saves reading the weight once.
///
/// State dict: "weight" [out, in], "bias" [out] (if any), "norm.weight" [in] (if any): a torch::nn::Linear's
/// archive loads into it (norm.weight is left as it is, one in a new layer) and its own loads into a
/// torch::nn::Linear. Loading keeps this layer's dtypes and device and throws c10::Error for shapes that
/// differ, and for an archive that has a bias or a norm where this layer has none.
class BitLinearImpl : public torch::nn::Cloneable<BitLinearImpl> {
 public:
  BitLinearImpl(int64_t in_features, int64_t out_features)
      : BitLinearImpl(BitLinearOptions(in_features, out_features)) {}
  explicit BitLinearImpl(const BitLinearOptions& options);
  void reset() override;
  void reset_parameters();
  void pretty_print(std::ostream& stream) const override;
  void load(torch::serialize::InputArchive& archive) override;
  /// x [..., in_features] of float32, float16 or bfloat16 -> y [..., out_features].
  torch::Tensor forward(const torch::Tensor& x);

  /// Makes these tensors the layer's parameters, by reference: an optimizer that holds them goes on working.
  void share_parameters(const torch::Tensor& new_weight, const torch::Tensor& new_bias);
  /// From now on forward() multiplies with these codes, uint8 [out_features, ceil(in_features / 4)], and this
  /// scale, float32 [1] or [out_features], or the group scales of its options, and does not look at `weight`,
  /// whose gradient is what it was. With undefined tensors `weight` counts again. Throws c10::Error for other
  /// shapes.
  void use_packed(const torch::Tensor& codes, const torch::Tensor& scale);
  /// How often forward() has packed the weight since reset().
  std::int64_t times_packed() const;

  BitLinearOptions options;
  torch::Tensor weight;   // [out_features, in_features]
  torch::Tensor bias;     // [out_features] or undefined
  RMSNorm norm{nullptr};  // null with Norm::none

 private:
  torch::Tensor warm_up(const torch::Tensor& x);

  std::shared_ptr<torch_layer::PackedWeightCache> cache_;
};
TORCH_MODULE(BitLinear);

/// Gradient accumulation: while one of these exists, the layers that this thread calls take their weights as
/// unchanged, so that each is packed and prepared once and not once for every part of the batch.
///
///   {
///     const trit::nn::GradientAccumulation same_weights;
///     for (const auto& part : parts) { loss(net(part)).backward(); }
///   }
///   optimizer.step();
///
/// A weight that changes meanwhile other than by a new version, address or type is not seen. Calls inside a
/// capture of a CUDA graph pack as they do without it.
class GradientAccumulation {
 public:
  GradientAccumulation();
  ~GradientAccumulation();
  GradientAccumulation(const GradientAccumulation&) = delete;
  GradientAccumulation& operator=(const GradientAccumulation&) = delete;

 private:
  std::uint64_t outer_;
};

/// One Linear that convert() met.
struct Conversion {
  std::string name;  // path in the module tree
  bool converted;
  std::string reason;  // why it was left, empty if converted
  /// Of a converted layer: the pointers outside the module tree that still lead to the old Linear (a class
  /// member of type torch::nn::Linear, say). Whoever calls it through one of them computes in float.
  std::int64_t held_elsewhere = 0;
};
struct ConvertOptions {
  trit::Norm norm = trit::Norm::rms;
  double eps = 1e-6;
  trit::ScaleGranularity scale = trit::ScaleGranularity::tensor;
  std::int64_t group = 0;  // as in BitLinearOptions
};
/// Replaces the torch::nn::Linear layers of a module tree whose path `filter` accepts (all by default) by
/// BitLinear with the same parameters (the same tensors: optimizers go on working), and reports each.
/// Layers in Sequential, ModuleList and ModuleDict are replaced at any depth, and those that a module has
/// registered without keeping a holder.
///
/// A class member of type torch::nn::Linear cannot point to a BitLinear, and Linear::forward is not virtual:
/// for `struct Net : Module { torch::nn::Linear fc1; }` such a layer is left and reported. Declare the member
/// as trit::nn::BitLinear instead; the Linear's state dict loads into it. Subclasses of Linear and float64
/// weights are left too, and a layer that was never registered is not seen.
///
/// Warns (TORCH_WARN) where the result may not be what was meant: nothing was replaced, layers were left for
/// another reason than the filter, or an old layer is still held elsewhere.
std::vector<Conversion> convert(
    torch::nn::Module& module,
    const std::function<bool(const std::string& name, torch::nn::LinearImpl&)>& filter = {},
    const ConvertOptions& options = {});

/// The tensors of a model file for `module`, in the stored form (format.h): name -> tensor on the CPU.
/// BitLinear weights become "<name>.weight" uint8 [N, ceil(K/4)] and "<name>.weight_scale", float32 [1], [N]
/// or [N, groups]; all other parameters are copied as float32 (a bias is "<name>.bias", a norm
/// "<name>.norm.weight"), and so are floating-point buffers (BatchNorm's "running_mean"). Other buffers
/// ("num_batches_tracked") keep their type. Names are those of named_parameters(): pack(*layer) of a single
/// layer gives "weight", and a file whose graph has a node "fc1" needs a module that registers the layer as
/// "fc1". Throws trit::Error that names tensor, row and column on a NaN or an infinity. Warns (TORCH_WARN) of a
/// module with torch::nn::Linear layers and no BitLinear: all of it stays float.
std::map<std::string, torch::Tensor> pack(const torch::nn::Module& module);

/// Writes pack(module) as a model file (docs/format.md) that trit::Model and the `trit` command run without
/// torch:
///
///   trit::nn::save_packed(*net, "model.safetensors", R"({"input": {"shape": [64]}, "nodes": [
///       {"op": "input"}, {"op": "bit_linear", "name": "fc1", "inputs": [0], "norm": "rms"}]})");
///
/// `graph` is the JSON text of "The graph of a model" in docs/format.md. Before `path` is touched, the graph
/// is checked against the module (norm and eps of each BitLinear) and the whole file by the reader that
/// trit::Model uses. torch::nn::Conv2d, Linear and BatchNorm become the nodes conv2d, linear and batch_norm
/// of the module's name; functions such as torch::gelu are nodes without one. Without a graph the file holds
/// tensors alone, for `trit info` and `trit convert`. `metadata` is added to the file's; its keys must not be
/// those that this function writes (trit.version, trit.layout, ...). A file has groups of one size
/// ("trit.group"): layers of different ones are an error. Atomic: `path` is as it was or whole.
/// The same parameters give the same bytes. Throws trit::Error that names the file, the node or tensor, what
/// was found and what was wanted.
void save_packed(const torch::nn::Module& module, const std::filesystem::path& path,
                 const std::string& graph = {},
                 const std::map<std::string, std::string, std::less<>>& metadata = {});

}  // namespace trit::nn

namespace trit::amp {

/// Autocast for one scope, and the state before it restored on exit (also by an exception).
class AutocastGuard {
 public:
  AutocastGuard(torch::DeviceType device, torch::ScalarType dtype, bool enabled = true);
  ~AutocastGuard();
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  torch::DeviceType device_;
  bool previous_enabled_;
  torch::ScalarType previous_dtype_;
};

struct GradScalerOptions {
  TORCH_ARG(double, init_scale) = 65536.0;
  TORCH_ARG(double, growth_factor) = 2.0;
  TORCH_ARG(double, backoff_factor) = 0.5;
  TORCH_ARG(int64_t, growth_interval) = 2000;
  TORCH_ARG(bool, enabled) = true;
};

/// Dynamic loss scaling as torch.amp.GradScaler does it.
class GradScaler {
 public:
  explicit GradScaler(torch::Device device = torch::kCPU, GradScalerOptions options = {});

  /// loss * scale
  torch::Tensor scale(const torch::Tensor& loss);
  /// Divides the gradients of the optimizer's parameters by the scale; notes Inf and NaN. Once per step.
  void unscale_(torch::optim::Optimizer& optimizer);
  /// unscale_ if that has not been done, then optimizer.step() unless a gradient was Inf or NaN.
  /// Returns whether the optimizer's step was taken.
  bool step(torch::optim::Optimizer& optimizer);
  /// After unscale_: float32 [] on the gradients' device, > 0 if one of them was Inf or NaN. For optimizers
  /// that leave a step out on the GPU by themselves (as at::_fused_adamw_ does), in place of step(): the host
  /// then waits for nothing. update() follows. All gradients must be on one device.
  torch::Tensor found_inf(torch::optim::Optimizer& optimizer) const;
  /// Backs off after a skipped step, grows after growth_interval good ones in a row.
  void update();
  void update(double new_scale);

  double get_scale() const;
  double get_growth_factor() const;
  double get_backoff_factor() const;
  int64_t get_growth_interval() const;
  bool is_enabled() const;
  /// Steps skipped since construction.
  int64_t skipped_steps() const;

  /// "scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker", as in Python.
  std::map<std::string, double> state_dict() const;
  void load_state_dict(const std::map<std::string, double>& state);
  void save(torch::serialize::OutputArchive& archive) const;
  void load(torch::serialize::InputArchive& archive);

 private:
  struct OptimizerState;
  torch::Device device_;
  GradScalerOptions options_;
  torch::Tensor scale_;           // float32 [1] on the device
  torch::Tensor growth_tracker_;  // int32 [1] on the device
  int64_t skipped_steps_ = 0;
  std::map<torch::optim::Optimizer*, std::shared_ptr<OptimizerState>> per_optimizer_;
};

}  // namespace trit::amp
