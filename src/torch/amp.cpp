// SPDX-License-Identifier: MIT
#include <ATen/autocast_mode.h>

#include <cmath>

#include "trit/error.h"
#include "trit/torch.h"

namespace trit::amp {
namespace {

double value_of(const std::map<std::string, double>& state, const std::string& key) {
  const auto entry = state.find(key);
  TORCH_CHECK(entry != state.end(), "GradScaler::load_state_dict: the state has no \"", key, "\"");
  return entry->second;
}

void check_options(const GradScalerOptions& options) {
  TORCH_CHECK(options.growth_factor() > 1.0, "GradScaler: the growth factor must be > 1, found ",
              options.growth_factor());
  TORCH_CHECK(options.backoff_factor() < 1.0, "GradScaler: the backoff factor must be < 1, found ",
              options.backoff_factor());
}

// The dense tensor behind a gradient. Summing duplicate indices of float16 values may overflow, so such a
// gradient is coalesced before it is checked.
torch::Tensor values_to_unscale(torch::Tensor& gradient) {
  if (!gradient.is_sparse()) {
    return gradient;
  }
  if (gradient.scalar_type() == torch::kHalf && !gradient.is_coalesced()) {
    gradient = gradient.coalesce();
  }
  return gradient._values();
}

}  // namespace

AutocastGuard::AutocastGuard(torch::DeviceType device, torch::ScalarType dtype, bool enabled)
    : device_(device),
      previous_enabled_(at::autocast::is_autocast_enabled(device)),
      previous_dtype_(at::autocast::get_autocast_dtype(device)) {
  TORCH_CHECK(!enabled || dtype == torch::kBFloat16 || dtype == torch::kHalf,
              "AutocastGuard: dtype must be bfloat16 or float16, found ", dtype);
  at::autocast::increment_nesting();
  at::autocast::set_autocast_enabled(device, enabled);
  if (enabled) {
    at::autocast::set_autocast_dtype(device, dtype);
  }
}

AutocastGuard::~AutocastGuard() {
  // Half copies of parameters live as long as the outermost scope.
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
  }
  at::autocast::set_autocast_enabled(device_, previous_enabled_);
  at::autocast::set_autocast_dtype(device_, previous_dtype_);
}

struct GradScaler::OptimizerState {
  enum class Stage : std::uint8_t { ready, unscaled, stepped };
  Stage stage = Stage::ready;
  std::map<std::string, torch::Tensor>
      found_inf;  // by device: float32 [], > 0 once a gradient was Inf or NaN
};

GradScaler::GradScaler(torch::Device device, GradScalerOptions options) : device_(device), options_(options) {
  if (options_.enabled()) {
    check_options(options_);
    scale_ = torch::full({}, options_.init_scale(), torch::dtype(torch::kFloat).device(device));
    growth_tracker_ = torch::zeros({}, torch::dtype(torch::kInt).device(device));
  }
}

torch::Tensor GradScaler::scale(const torch::Tensor& loss) {
  return options_.enabled() ? loss * scale_.to(loss.device()) : loss;
}

void GradScaler::unscale_(torch::optim::Optimizer& optimizer) {
  if (!options_.enabled()) {
    return;
  }
  auto& state = per_optimizer_[&optimizer];
  if (!state) {
    state = std::make_shared<OptimizerState>();
  }
  TORCH_CHECK(state->stage != OptimizerState::Stage::unscaled,
              "unscale_() has already been called on this optimizer since the last update().");
  TORCH_CHECK(state->stage != OptimizerState::Stage::stepped, "unscale_() is being called after step().");

  const torch::NoGradGuard no_grad;
  // The reciprocal in double, rounded once.
  const torch::Tensor inverse = scale_.to(torch::kDouble).reciprocal().to(torch::kFloat);
  struct Group {
    std::string device;
    std::vector<torch::Tensor> gradients;
  };
  std::map<std::pair<std::string, torch::ScalarType>, Group> groups;
  for (auto& group : optimizer.param_groups()) {
    for (auto& parameter : group.params()) {
      auto& gradient = parameter.mutable_grad();
      if (!gradient.defined()) {
        continue;
      }
      TORCH_CHECK(gradient.scalar_type() != torch::kHalf, "Attempting to unscale FP16 gradients.");
      const auto values = values_to_unscale(gradient);
      const auto device = values.device().str();
      auto& target = groups[{device, values.scalar_type()}];
      target.device = device;
      target.gradients.push_back(values);
    }
  }
  state->found_inf.clear();
  for (auto& [key, group] : groups) {
    auto& found = state->found_inf[group.device];
    const auto device = group.gradients.front().device();
    if (!found.defined()) {
      found = torch::zeros({}, torch::dtype(torch::kFloat).device(device));
    }
    at::_amp_foreach_non_finite_check_and_unscale_(group.gradients, found, inverse.to(device));
  }
  state->stage = OptimizerState::Stage::unscaled;
}

bool GradScaler::step(torch::optim::Optimizer& optimizer) {
  if (!options_.enabled()) {
    optimizer.step();
    return true;
  }
  const auto found = per_optimizer_.find(&optimizer);
  TORCH_CHECK(found == per_optimizer_.end() || found->second->stage != OptimizerState::Stage::stepped,
              "step() has already been called since the last update().");
  if (found == per_optimizer_.end() || found->second->stage == OptimizerState::Stage::ready) {
    unscale_(optimizer);
  }
  auto& state = *per_optimizer_.at(&optimizer);
  TORCH_CHECK(!state.found_inf.empty(), "No inf checks were recorded for this optimizer.");
  bool finite = true;
  for (const auto& [device, found_inf] : state.found_inf) {
    finite = finite && found_inf.item<float>() == 0.0F;
  }
  if (finite) {
    optimizer.step();
  } else {
    ++skipped_steps_;
  }
  state.stage = OptimizerState::Stage::stepped;
  return finite;
}

torch::Tensor GradScaler::found_inf(torch::optim::Optimizer& optimizer) const {
  const auto found = per_optimizer_.find(&optimizer);
  TORCH_CHECK(found != per_optimizer_.end() && found->second->found_inf.size() == 1,
              "GradScaler::found_inf: wanted an optimizer whose gradients, all on one device, unscale_() has "
              "divided since the last update().");
  return found->second->found_inf.begin()->second;
}

void GradScaler::update() {
  if (!options_.enabled()) {
    return;
  }
  torch::Tensor combined;
  for (const auto& [optimizer, state] : per_optimizer_) {
    for (const auto& [device, found_inf] : state->found_inf) {
      const auto here = found_inf.to(scale_.device());
      combined = combined.defined() ? combined + here : here;
    }
  }
  TORCH_CHECK(combined.defined(), "No inf checks were recorded prior to update.");
  const torch::NoGradGuard no_grad;
  at::_amp_update_scale_(scale_, growth_tracker_, combined, options_.growth_factor(),
                         options_.backoff_factor(), options_.growth_interval());
  per_optimizer_.clear();
}

void GradScaler::update(double new_scale) {
  if (!options_.enabled()) {
    return;
  }
  TORCH_CHECK(std::isfinite(new_scale) && new_scale > 0,
              "GradScaler: the scale must be finite and positive, found ", new_scale);
  scale_.fill_(new_scale);
  per_optimizer_.clear();
}

double GradScaler::get_scale() const { return options_.enabled() ? scale_.item<float>() : 1.0; }
double GradScaler::get_growth_factor() const { return options_.growth_factor(); }
double GradScaler::get_backoff_factor() const { return options_.backoff_factor(); }
int64_t GradScaler::get_growth_interval() const { return options_.growth_interval(); }
bool GradScaler::is_enabled() const { return options_.enabled(); }
int64_t GradScaler::skipped_steps() const { return skipped_steps_; }

std::map<std::string, double> GradScaler::state_dict() const {
  if (!options_.enabled()) {
    return {};
  }
  return {{"scale", get_scale()},
          {"growth_factor", get_growth_factor()},
          {"backoff_factor", get_backoff_factor()},
          {"growth_interval", static_cast<double>(get_growth_interval())},
          {"_growth_tracker", static_cast<double>(growth_tracker_.item<std::int32_t>())}};
}

void GradScaler::load_state_dict(const std::map<std::string, double>& state) {
  if (!options_.enabled()) {
    return;
  }
  TORCH_CHECK(!state.empty(),
              "The source state dict is empty, possibly because it was saved from a disabled instance of "
              "GradScaler.");
  const auto growth_interval = static_cast<std::int64_t>(value_of(state, "growth_interval"));
  const auto loaded = GradScalerOptions(options_)
                          .growth_factor(value_of(state, "growth_factor"))
                          .backoff_factor(value_of(state, "backoff_factor"))
                          .growth_interval(growth_interval);
  const double scale = value_of(state, "scale");
  const double tracker = value_of(state, "_growth_tracker");
  check_options(loaded);
  options_ = loaded;
  scale_.fill_(scale);
  growth_tracker_.fill_(tracker);
}

void GradScaler::save(torch::serialize::OutputArchive& archive) const {
  for (const auto& [key, value] : state_dict()) {
    archive.write(key, torch::full({}, value, torch::kDouble));
  }
}

void GradScaler::load(torch::serialize::InputArchive& archive) {
  if (!options_.enabled()) {
    return;
  }
  std::map<std::string, double> state;
  for (const char* key : {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}) {
    torch::Tensor value;
    archive.read(key, value);
    state[key] = value.item<double>();
  }
  load_state_dict(state);
}

}  // namespace trit::amp
