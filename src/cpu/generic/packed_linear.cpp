// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cpu/generic/aligned_buffer.h"
#include "cpu/generic/product.h"
#include "cpu/generic/tasks.h"
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

bool are_valid(std::span<const std::uint8_t> rows, std::int64_t in_features) {
  constexpr float kAnyScale = 1.0F;
  try {
    check({static_cast<std::int64_t>(rows.size()) / packed_row_bytes(in_features),
           in_features,
           rows,
           {&kAnyScale, 1}},
          "");
    return true;
  } catch (const Error&) {
    return false;
  }
}

const PanelLayout& layout_of(const CpuKernels& kernels, PanelFormat format) {
  const auto found =
      std::find_if(kernels.layouts.begin(), kernels.layouts.end(),
                   [&](const PanelLayout& layout) { return layout.format == format && layout.available(); });
  return found == kernels.layouts.end() ? kernels.layouts.front() : *found;
}

}  // namespace

struct PackedLinear::State {
  const CpuKernels* kernels;
  const PanelLayout* layout;
  std::int64_t out_features;
  std::int64_t in_features;
  std::vector<float> scale;
  generic::AlignedBuffer panels;
};

PackedLinear::PackedLinear(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
                           PanelFormat format)
    : PackedLinear(kernels, parallel, weight, format, AfterPanel()) {}

PackedLinear::PackedLinear(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
                           PanelFormat format, const AfterPanel& after) {
  check_sizes(weight);
  if (format == PanelFormat::automatic) {
    format = choose_layout(kernels, parallel, static_cast<std::int64_t>(weight.codes.size())).format;
  }
  const PanelLayout& layout = layout_of(kernels, format);
  const std::int64_t row_bytes = packed_row_bytes(weight.in_features);
  const std::int64_t panels = (weight.out_features + layout.panel_rows - 1) / layout.panel_rows;
  const std::int64_t panel_bytes = row_bytes * layout.panel_bytes_per_4;
  state_ = std::make_unique<State>(State{
      .kernels = &kernels,
      .layout = &layout,
      .out_features = weight.out_features,
      .in_features = weight.in_features,
      .scale = {weight.scale.begin(), weight.scale.end()},
      .panels = generic::AlignedBuffer(static_cast<std::size_t>(panels * panel_bytes)),
  });
  const std::int64_t tasks = generic::task_count(parallel, panels, weight.out_features * weight.in_features,
                                                 kWorkPerTask, kTasksPerThread);
  generic::run_tasks(parallel, tasks, [&](std::int64_t task) {
    const generic::Part part = generic::part_of(panels, tasks, task);
    for (std::int64_t panel = part.begin; panel < part.end; ++panel) {
      const std::int64_t row = panel * layout.panel_rows;
      const std::int64_t rows = std::min(layout.panel_rows, weight.out_features - row);
      const auto codes = weight.codes.subspan(static_cast<std::size_t>(row * row_bytes),
                                              static_cast<std::size_t>(rows * row_bytes));
      layout.prepare_panel(codes.data(), row_bytes, rows, weight.in_features,
                           state_->panels.data() + panel * panel_bytes);
      if (after) {
        after(task, codes);
      }
    }
  });
}

PackedLinear PackedLinear::checked(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
                                   PanelFormat format, std::string_view name, std::uint32_t& codes_crc) {
  // Of a task's codes, which follow each other. On a cache line of its own.
  struct alignas(64) Seen {
    std::uint32_t crc = 0;
    std::uint64_t bytes = 0;
    bool bad = false;
  };
  std::vector<Seen> seen(static_cast<std::size_t>(std::max(1, parallel.threads()) * kTasksPerThread));
  PackedLinear packed(kernels, parallel, weight, format,
                      [&](std::int64_t task, std::span<const std::uint8_t> codes) {
                        Seen& own = seen[static_cast<std::size_t>(task)];
                        own.crc = crc32c(std::as_bytes(codes), own.crc);
                        own.bytes += codes.size();
                        own.bad = own.bad || !are_valid(codes, weight.in_features);
                      });
  const bool good_scales =
      std::ranges::all_of(weight.scale, [](float scale) { return std::isfinite(scale) && scale > 0; });
  if (!good_scales || std::ranges::any_of(seen, &Seen::bad)) {
    check(weight, name);  // says what and where
  }
  codes_crc = 0;
  for (const Seen& part : seen) {
    codes_crc = crc32c_combine(codes_crc, part.crc, part.bytes);
  }
  return packed;
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
