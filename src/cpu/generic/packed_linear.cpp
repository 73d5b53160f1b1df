// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/integer.h"
#include "base/tasks.h"
#include "cpu/generic/panel_scales.h"
#include "cpu/generic/product.h"
#include "trit/error.h"
#include "trit/linear.h"

namespace trit {
namespace {

// |acc| <= 128 * K must fit in int32.
constexpr std::int64_t kMaxInFeatures = (1 << 24) - 1;
// Codes per task of the preparation, about 20 us.
constexpr std::int64_t kWorkPerTask = 1 << 17;
// Per thread, more than elsewhere: the first touch of a huge page costs its thread as much as 8 panels of 64
// x 4096, so the parts of two threads end at different times.
constexpr std::int64_t kPreparationTasks = 16;

std::string shape_of(const TernaryView& weight) {
  return "[" + std::to_string(weight.out_features) + ", " + std::to_string(weight.in_features) + "]";
}

// Sizes alone: trit::check reads the codes and scales, once, where they come from a file. A scale that
// training made NaN passes through to y.
void check_sizes(const TernaryView& weight) {
  const std::string layer = "packed linear layer " + shape_of(weight) + ": ";
  if (weight.out_features < 1 || weight.in_features < 1) {
    throw Error(layer + "wanted at least [1, 1]");
  }
  if (weight.in_features > kMaxInFeatures) {
    throw Error(layer + "at most " + std::to_string(kMaxInFeatures) + " inputs, since sums are 32-bit");
  }
  const std::int64_t row_bytes = packed_row_bytes(weight.in_features);
  if (static_cast<std::int64_t>(weight.codes.size()) / row_bytes != weight.out_features ||
      static_cast<std::int64_t>(weight.codes.size()) % row_bytes != 0) {
    throw Error(layer + std::to_string(weight.codes.size()) + " bytes of codes, wanted " +
                std::to_string(weight.out_features) + " rows of " + std::to_string(row_bytes));
  }
  if (weight.group != 0 && !is_group_size(weight.group)) {
    throw Error(layer + "groups of " + std::to_string(weight.group) + " inputs, wanted a multiple of " +
                std::to_string(kGroupStep));
  }
  const std::int64_t wanted = weight.out_features * groups_of(weight.in_features, weight.group);
  if (std::ssize(weight.scale) != wanted && (weight.group != 0 || weight.scale.size() != 1)) {
    throw Error(layer + std::to_string(weight.scale.size()) + " scales, wanted " +
                (weight.group == 0 ? "1 or " : "") + std::to_string(wanted));
  }
}

}  // namespace

const PanelLayout& generic::layout_of(const CpuKernels& kernels, PanelFormat format, std::int64_t group) {
  const bool wants_groups = group != 0 && kernels.layouts.front().groups != nullptr;
  const auto found =
      std::find_if(kernels.layouts.begin(), kernels.layouts.end(), [&](const PanelLayout& layout) {
        return layout.format == format && layout.available() && !(wants_groups && layout.groups == nullptr);
      });
  return found == kernels.layouts.end() ? kernels.layouts.front() : *found;
}

struct PackedLinear::State {
  State(const CpuKernels& backend, const Parallel& parallel, const TernaryView& weight,
        const PanelLayout& panel)
      : kernels(&backend),
        layout(&panel),
        out_features(weight.out_features),
        in_features(weight.in_features),
        group(weight.group),
        panel_count(ceil_div(out_features, layout->panel_rows)),
        panel_bytes(packed_row_bytes(in_features) * layout->panel_bytes_per_4),
        task_count(trit::task_count(parallel, panel_count, out_features * in_features, kWorkPerTask,
                                    kPreparationTasks)) {
    if (group == 0) {
      scale.assign(weight.scale.begin(), weight.scale.end());
      return;
    }
    scale_type = generic::panel_scale_type(weight.scale);
    are_scalable = generic::are_scalable(weight.scale);
    scale_bytes = generic::panel_scale_bytes(*layout, groups_of(in_features, group), scale_type);
  }

  /// Group scales begin on a cache line behind the panels.
  std::int64_t scales_begin() const { return round_up(panel_count * panel_bytes, std::int64_t{kCacheLine}); }
  std::size_t bytes() const {
    return static_cast<std::size_t>(group == 0 ? panel_count * panel_bytes
                                               : scales_begin() + panel_count * scale_bytes);
  }
  std::uint8_t* group_scales() const { return panels.data() + scales_begin(); }

  /// Prepares the panels of a task; before_rows(first_row, codes) sees the stored rows of each first.
  template <typename BeforeRows>
  void prepare(const TernaryView& weight, std::int64_t task, const BeforeRows& before_rows) {
    const std::int64_t row_bytes = packed_row_bytes(in_features);
    const Part part = part_of(panel_count, task_count, task);
    for (std::int64_t panel = part.begin; panel < part.end; ++panel) {
      const std::int64_t row = panel * layout->panel_rows;
      const std::int64_t rows = std::min(layout->panel_rows, out_features - row);
      const auto codes = weight.codes.subspan(static_cast<std::size_t>(row * row_bytes),
                                              static_cast<std::size_t>(rows * row_bytes));
      before_rows(row, codes);
      layout->prepare_panel(codes.data(), row_bytes, rows, in_features, panels.data() + panel * panel_bytes);
      if (group != 0) {
        generic::prepare_panel_scales(weight, row, rows, layout->panel_rows, scale_type,
                                      group_scales() + panel * scale_bytes);
      }
    }
  }

  const CpuKernels* kernels;
  const PanelLayout* layout;
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t group;  // 0 without group scales
  std::int64_t panel_count;
  std::int64_t panel_bytes;
  std::int64_t task_count;                  // of the preparation
  std::vector<float> scale;                 // [1] or [N]
  DataType scale_type = DataType::float32;  // of group scales
  bool are_scalable = false;
  std::int64_t scale_bytes = 0;           // group scales of a panel
  std::shared_ptr<AlignedBuffer> memory;  // of all layers that were prepared together
  std::span<std::uint8_t> panels;         // this one's part of it: panels, then their group scales
};

PackedLinear::PackedLinear(std::unique_ptr<State> state) : state_(std::move(state)) {}

// One buffer for all: together the layers of a model have huge pages, where those under 1.5 MB would each lie
// on pages of 4 KiB.
void PackedLinear::allocate(const std::vector<State*>& states) {
  const auto room = [](const State& state) { return round_up(state.bytes(), kCacheLine); };
  std::size_t bytes = 0;
  for (const State* state : states) {
    bytes += room(*state);
  }
  const auto memory = std::make_shared<AlignedBuffer>(bytes);
  std::size_t at = 0;
  for (State* const state : states) {
    state->memory = memory;
    state->panels = {memory->data() + at, state->bytes()};
    at += room(*state);
  }
}

PackedLinear::PackedLinear(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
                           PanelFormat format)
    : PackedLinear(std::move(prepare(kernels, parallel, {&weight, 1}, format).front())) {}

std::vector<PackedLinear> PackedLinear::prepare(const CpuKernels& kernels, Parallel& parallel,
                                                std::span<const TernaryView> weights, PanelFormat format,
                                                const PreparationHooks& hooks) {
  if (weights.empty()) {
    return {};
  }
  std::ranges::for_each(weights, check_sizes);
  std::vector<PackedLinear> layers;
  std::vector<State*> states;
  for (const TernaryView& weight : weights) {
    layers.push_back(PackedLinear(std::make_unique<State>(
        kernels, parallel, weight, generic::layout_of(kernels, format, weight.group))));
    states.push_back(layers.back().state_.get());
  }
  allocate(states);
  // The tasks of all matrices in one go: threads that met after every matrix would wait for as long as the
  // clearing of a huge page takes. The parts of a matrix are prepared by the threads that will read them, as
  // if it were the only one.
  struct Task {
    std::size_t matrix;
    std::int64_t index;         // among the matrix's tasks
    std::int64_t first_thread;  // the thread that starts with it
  };
  std::vector<Task> tasks;
  std::vector<std::atomic<std::int64_t>> left(states.size());
  for (std::size_t matrix = 0; matrix < states.size(); ++matrix) {
    const std::int64_t count = states[matrix]->task_count;
    left[matrix] = count;
    for (std::int64_t index = 0; index < count; ++index) {
      tasks.push_back({matrix, index, index * parallel.threads() / count});
    }
  }
  std::ranges::stable_sort(tasks, {}, &Task::first_thread);
  run_tasks(parallel, std::ssize(tasks), [&](std::int64_t at) {
    const Task& task = tasks[static_cast<std::size_t>(at)];
    states[task.matrix]->prepare(weights[task.matrix], task.index,
                                 [&](std::int64_t first_row, std::span<const std::uint8_t> codes) {
                                   if (hooks.before_rows) {
                                     hooks.before_rows(task.matrix, first_row, codes);
                                   }
                                 });
    if (--left[task.matrix] == 0 && hooks.after_matrix) {
      hooks.after_matrix(task.matrix);
    }
  });
  return layers;
}

PackedLinear::~PackedLinear() = default;
PackedLinear::PackedLinear(PackedLinear&&) noexcept = default;
PackedLinear& PackedLinear::operator=(PackedLinear&&) noexcept = default;

std::int64_t PackedLinear::out_features() const { return state_->out_features; }
std::int64_t PackedLinear::in_features() const { return state_->in_features; }
const CpuKernels& PackedLinear::kernels() const { return *state_->kernels; }
PanelFormat PackedLinear::format() const { return state_->layout->format; }
std::size_t PackedLinear::bytes() const { return state_->panels.size(); }
std::int64_t PackedLinear::group() const { return state_->group; }

void PackedLinear::product(Parallel& parallel, const QuantizedRows& x, const float* bias, DataType y_type,
                           void* y) const {
  if (x.tokens < 0) {
    throw Error("product: " + std::to_string(x.tokens) + " tokens, wanted 0 or more");
  }
  if (x.tokens == 0) {
    return;
  }
  if (x.group != 0 && x.group != state_->group) {
    throw Error("product: token scales of " + std::to_string(x.group) + " inputs, but weight scales of " +
                std::to_string(state_->group));
  }
  if (x.q == nullptr || x.scale == nullptr || (x.q_sum == nullptr && state_->group == 0) || y == nullptr) {
    throw Error("product: null q, scale, q_sum or y for " + std::to_string(x.tokens) + " tokens");
  }
  generic::product(parallel, {.kernels = *state_->kernels,
                              .layout = *state_->layout,
                              .out_features = state_->out_features,
                              .in_features = state_->in_features,
                              .panels = state_->panels.data(),
                              .weight_scale = state_->scale.data(),
                              .weight_scale_per_row = state_->scale.size() > 1,  // none with group scales
                              .x = x,
                              .bias = bias,
                              .y_type = y_type,
                              .y = y,
                              .group = state_->group,
                              .group_scales = {state_->group_scales(), state_->scale_type},
                              .group_scales_are_scalable = state_->are_scalable});
}

}  // namespace trit
