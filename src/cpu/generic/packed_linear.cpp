// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "cpu/generic/aligned_buffer.h"
#include "cpu/generic/product.h"
#include "cpu/generic/tasks.h"
#include "format/code_two.h"
#include "io/codes_scan.h"
#include "trit/crc32c.h"
#include "trit/error.h"
#include "trit/layout.h"
#include "trit/linear.h"

namespace trit {
namespace {

// |acc| <= 128 * K must fit in int32.
constexpr std::int64_t kMaxInFeatures = (1 << 24) - 1;
// Codes per task of the preparation, about 20 us.
constexpr std::int64_t kWorkPerTask = 1 << 17;
// More than elsewhere: the first touch of a huge page costs its thread as much as 8 panels of 64 x 4096, so
// the parts of two threads end at different times.
constexpr std::int64_t kTasksPerThread = 16;

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
  if (weight.scale.size() != 1 && static_cast<std::int64_t>(weight.scale.size()) != weight.out_features) {
    throw Error(layer + std::to_string(weight.scale.size()) + " scales, wanted 1 or " +
                std::to_string(weight.out_features));
  }
}

/// Padding of the last byte of `rows`, which must be 0.
bool is_padded(std::span<const std::uint8_t> rows, std::int64_t in_features) {
  const unsigned padding = padding_bits(in_features);
  if (padding == 0) {
    return true;
  }
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(in_features));
  unsigned found = 0;
  for (std::size_t last = row_bytes - 1; last < rows.size(); last += row_bytes) {
    found |= rows[last] & padding;
  }
  return found == 0;
}

/// `bytes`: of all weights that are read one after the other, at 2 bits each.
const PanelLayout& layout_of(const CpuKernels& kernels, Parallel& parallel, PanelFormat format,
                             std::int64_t bytes) {
  if (format == PanelFormat::automatic) {
    format = choose_layout(kernels, parallel, bytes).format;
  }
  const auto found =
      std::find_if(kernels.layouts.begin(), kernels.layouts.end(),
                   [&](const PanelLayout& layout) { return layout.format == format && layout.available(); });
  return found == kernels.layouts.end() ? kernels.layouts.front() : *found;
}

}  // namespace

struct PackedLinear::State {
  State(const CpuKernels& backend, const Parallel& parallel, const TernaryView& weight,
        const PanelLayout& panel)
      : kernels(&backend),
        layout(&panel),
        out_features(weight.out_features),
        in_features(weight.in_features),
        panel_count((out_features + layout->panel_rows - 1) / layout->panel_rows),
        panel_bytes(packed_row_bytes(in_features) * layout->panel_bytes_per_4),
        task_count(generic::task_count(parallel, panel_count, out_features * in_features, kWorkPerTask,
                                       kTasksPerThread)),
        scale(weight.scale.begin(), weight.scale.end()) {}

  std::size_t bytes() const { return static_cast<std::size_t>(panel_count * panel_bytes); }

  /// Prepares the panels of a task; `before` sees the stored rows of each first.
  template <typename Before>
  void prepare(const TernaryView& weight, std::int64_t task, const Before& before) {
    const std::int64_t row_bytes = packed_row_bytes(in_features);
    const generic::Part part = generic::part_of(panel_count, task_count, task);
    for (std::int64_t panel = part.begin; panel < part.end; ++panel) {
      const std::int64_t row = panel * layout->panel_rows;
      const std::int64_t rows = std::min(layout->panel_rows, out_features - row);
      const auto codes = weight.codes.subspan(static_cast<std::size_t>(row * row_bytes),
                                              static_cast<std::size_t>(rows * row_bytes));
      before(codes);
      layout->prepare_panel(codes.data(), row_bytes, rows, in_features, panels.data() + panel * panel_bytes);
    }
  }

  const CpuKernels* kernels;
  const PanelLayout* layout;
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t panel_count;
  std::int64_t panel_bytes;
  std::int64_t task_count;  // of the preparation
  std::vector<float> scale;
  std::shared_ptr<generic::AlignedBuffer> memory;  // of all layers that were prepared together
  std::span<std::uint8_t> panels;                  // this one's part of it
};

PackedLinear::PackedLinear(std::unique_ptr<State> state) : state_(std::move(state)) {}

// One buffer for all: together the layers of a model have huge pages, where those under 1.5 MB would each lie
// on pages of 4 KiB.
void PackedLinear::allocate(const std::vector<State*>& states) {
  constexpr std::size_t kCacheLine = 64;
  const auto room = [](const State& state) {
    return (state.bytes() + kCacheLine - 1) / kCacheLine * kCacheLine;
  };
  std::size_t bytes = 0;
  for (const State* state : states) {
    bytes += room(*state);
  }
  const auto memory = std::make_shared<generic::AlignedBuffer>(bytes);
  std::size_t at = 0;
  for (State* const state : states) {
    state->memory = memory;
    state->panels = {memory->data() + at, state->bytes()};
    at += room(*state);
  }
}

PackedLinear::PackedLinear(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
                           PanelFormat format) {
  check_sizes(weight);
  const PanelLayout& layout = layout_of(kernels, parallel, format, std::ssize(weight.codes));
  state_ = std::make_unique<State>(kernels, parallel, weight, layout);
  allocate({state_.get()});
  generic::run_tasks(parallel, state_->task_count, [&](std::int64_t task) {
    state_->prepare(weight, task, [](std::span<const std::uint8_t>) {});
  });
}

std::vector<PackedLinear> PackedLinear::checked(const CpuKernels& kernels, Parallel& parallel,
                                                std::span<StoredMatrix> matrices, PanelFormat format,
                                                const std::function<void(const StoredMatrix&)>& after) {
  // Of a task's codes, which follow each other. On a cache line of its own.
  struct alignas(64) Task {
    std::size_t matrix;
    std::int64_t index;   // of the matrix's
    std::int64_t thread;  // that begins with it
    io::CodesScan seen;
    std::uint64_t bytes = 0;
  };
  std::vector<PackedLinear> layers;
  std::vector<Task> tasks;
  std::int64_t stored_bytes = 0;
  for (const StoredMatrix& matrix : matrices) {
    check_sizes(matrix.weight);
    stored_bytes += std::ssize(matrix.weight.codes);
  }
  if (matrices.empty()) {
    return layers;
  }
  const PanelLayout& layout = layout_of(kernels, parallel, format, stored_bytes);
  std::vector<State*> states;
  for (const StoredMatrix& matrix : matrices) {
    layers.push_back(PackedLinear(std::make_unique<State>(kernels, parallel, matrix.weight, layout)));
    states.push_back(layers.back().state_.get());
  }
  allocate(states);
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    const std::int64_t count = states[i]->task_count;
    for (std::int64_t task = 0; task < count; ++task) {
      tasks.push_back({.matrix = i, .index = task, .thread = task * parallel.threads() / count, .seen = {}});
    }
  }
  // All in one go: threads that waited for each other after every matrix would do so for as long as the
  // clearing of a huge page takes. The parts of a matrix are prepared by the threads that will read them, as
  // if it were the only one.
  std::vector<Task*> order;
  std::ranges::transform(tasks, std::back_inserter(order), [](Task& task) { return &task; });
  std::ranges::stable_sort(order, {}, &Task::thread);
  std::vector<std::atomic<std::int64_t>> left(matrices.size());
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    left[i] = states[i]->task_count;
  }
  generic::run_tasks(parallel, static_cast<std::int64_t>(order.size()), [&](std::int64_t at) {
    Task& task = *order[static_cast<std::size_t>(at)];
    const StoredMatrix& matrix = matrices[task.matrix];
    layers[task.matrix].state_->prepare(matrix.weight, task.index, [&](std::span<const std::uint8_t> codes) {
      task.seen = io::scan_codes(codes, task.seen);
      task.seen.has_two = task.seen.has_two || !is_padded(codes, matrix.weight.in_features);
      task.bytes += codes.size();
    });
    if (--left[task.matrix] == 0 && after) {
      after(matrix);
    }
  });
  auto task = tasks.begin();
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    StoredMatrix& matrix = matrices[i];
    bool good = std::ranges::all_of(matrix.weight.scale,
                                    [](float scale) { return std::isfinite(scale) && scale > 0; });
    matrix.codes_crc = 0;
    for (; task != tasks.end() && task->matrix == i; ++task) {
      good = good && !task->seen.has_two;
      matrix.codes_crc = crc32c_combine(matrix.codes_crc, task->seen.crc, task->bytes);
    }
    if (!good) {
      check(matrix.weight, matrix.name);  // says what and where
    }
  }
  return layers;
}

PackedLinear::~PackedLinear() = default;
PackedLinear::PackedLinear(PackedLinear&&) noexcept = default;
PackedLinear& PackedLinear::operator=(PackedLinear&&) noexcept = default;

std::int64_t PackedLinear::out_features() const { return state_->out_features; }
std::int64_t PackedLinear::in_features() const { return state_->in_features; }
const CpuKernels& PackedLinear::kernels() const { return *state_->kernels; }
const PanelLayout& PackedLinear::layout() const { return *state_->layout; }
std::size_t PackedLinear::bytes() const { return state_->panels.size(); }

void PackedLinear::product(Parallel& parallel, const QuantizedRows& x, const float* bias, DataType y_type,
                           void* y) const {
  if (x.tokens < 0) {
    throw Error("product: " + std::to_string(x.tokens) + " tokens, wanted 0 or more");
  }
  if (x.tokens == 0) {
    return;
  }
  if (x.q == nullptr || x.scale == nullptr || x.q_sum == nullptr || y == nullptr) {
    throw Error("product: null q, scale, q_sum or y for " + std::to_string(x.tokens) + " tokens");
  }
  generic::product(parallel, {.kernels = *state_->kernels,
                              .layout = *state_->layout,
                              .out_features = state_->out_features,
                              .in_features = state_->in_features,
                              .panels = state_->panels.data(),
                              .scale = state_->scale.data(),
                              .scale_per_row = state_->scale.size() != 1,
                              .x = x,
                              .bias = bias,
                              .y_type = y_type,
                              .y = y});
}

}  // namespace trit
