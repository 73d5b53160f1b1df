// SPDX-License-Identifier: MIT
#include "trit/prepared.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "base/integer.h"
#include "base/tasks.h"
#include "cpu/generic/product.h"
#include "trit/error.h"

namespace trit {
namespace {

// |acc| <= 128 * K must fit in int32.
constexpr std::int64_t kMaxInFeatures = (1 << 24) - 1;
// Codes per task of the preparation, about 20 us.
constexpr std::int64_t kWorkPerTask = 1 << 17;

constexpr std::array<char, 8> kMagic{'t', 'r', 'i', 't', 'p', 'r', 'e', 'p'};

struct Header {
  std::array<char, 8> magic;
  Backend backend;
  PanelFormat format;
  std::array<std::uint8_t, 6> zeros;
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t panel_rows;
  std::int64_t panel_bytes;
  std::array<std::uint8_t, 16> more_zeros;
};
static_assert(sizeof(Header) == kPreparedAlignment);

std::string shape_text(std::int64_t out_features, std::int64_t in_features) {
  return "[" + std::to_string(out_features) + ", " + std::to_string(in_features) + "]";
}

const PanelLayout& layout_of(const CpuKernels& kernels, PanelFormat format) {
  const auto found =
      std::find_if(kernels.layouts.begin(), kernels.layouts.end(),
                   [&](const PanelLayout& layout) { return layout.format == format && layout.available(); });
  return found == kernels.layouts.end() ? kernels.layouts.front() : *found;
}

Header header_of(const CpuKernels& kernels, const PanelLayout& layout, std::int64_t out_features,
                 std::int64_t in_features) {
  if (out_features < 1 || in_features < 1 || in_features > kMaxInFeatures) {
    throw Error("prepared weight " + shape_text(out_features, in_features) +
                ": wanted at least [1, 1] and at most " + std::to_string(kMaxInFeatures) +
                " inputs, since sums are 32-bit");
  }
  return {.magic = kMagic,
          .backend = kernels.backend,
          .format = layout.format,
          .zeros = {},
          .out_features = out_features,
          .in_features = in_features,
          .panel_rows = layout.panel_rows,
          .panel_bytes = packed_row_bytes(in_features) * layout.panel_bytes_per_4,
          .more_zeros = {}};
}

std::size_t total_bytes(const Header& header) {
  return sizeof(Header) +
         static_cast<std::size_t>(ceil_div(header.out_features, header.panel_rows) * header.panel_bytes);
}

void check_alignment(const void* bytes) {
  if (reinterpret_cast<std::uintptr_t>(bytes) % kPreparedAlignment != 0) {
    throw Error("prepared weight: it begins " +
                std::to_string(reinterpret_cast<std::uintptr_t>(bytes) % kPreparedAlignment) +
                " bytes behind a cache line, wanted at one");
  }
}

// The layout of these bytes, once they are known to be what the product expects.
const PanelLayout& checked_layout(const CpuKernels& kernels, const PreparedProduct& args) {
  const std::string what = "prepared weight " + shape_text(args.out_features, args.in_features) + ": ";
  Header header{};
  if (args.prepared.size() < sizeof(header)) {
    throw Error(what + std::to_string(args.prepared.size()) + " bytes, fewer than its header has");
  }
  std::memcpy(&header, args.prepared.data(), sizeof(header));
  if (header.magic != kMagic) {
    throw Error(what + "these bytes were not made by prepare_weight");
  }
  if (header.backend != kernels.backend) {
    throw Error(what + "prepared for the backend " + std::string(name_of(header.backend)) +
                ", while this process runs " + std::string(name_of(kernels.backend)) +
                ": prepare it again from the stored form");
  }
  const PanelLayout& layout = layout_of(kernels, header.format);
  const Header wanted = header_of(kernels, layout, args.out_features, args.in_features);
  if (std::memcmp(&header, &wanted, sizeof(header)) != 0) {
    throw Error(what + "these bytes hold " + shape_text(header.out_features, header.in_features) + " as " +
                std::string(name_of(header.format)));
  }
  if (args.prepared.size() != total_bytes(wanted)) {
    throw Error(what + std::to_string(args.prepared.size()) + " bytes, wanted " +
                std::to_string(total_bytes(wanted)));
  }
  return layout;
}

}  // namespace

std::size_t prepared_bytes(const CpuKernels& kernels, PanelFormat format, std::int64_t out_features,
                           std::int64_t in_features) {
  return total_bytes(header_of(kernels, layout_of(kernels, format), out_features, in_features));
}

void prepare_weight(const CpuKernels& kernels, Parallel& parallel, std::span<const std::uint8_t> codes,
                    std::int64_t out_features, std::int64_t in_features, PanelFormat format,
                    std::span<std::uint8_t> prepared) {
  const PanelLayout& layout = layout_of(kernels, format);
  const Header header = header_of(kernels, layout, out_features, in_features);
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  if (static_cast<std::int64_t>(codes.size()) != out_features * row_bytes ||
      prepared.size() != total_bytes(header)) {
    throw Error("prepare_weight " + shape_text(out_features, in_features) + ": " +
                std::to_string(codes.size()) + " bytes of codes to " + std::to_string(prepared.size()) +
                ", wanted " + std::to_string(out_features * row_bytes) + " to " +
                std::to_string(total_bytes(header)));
  }
  check_alignment(prepared.data());
  std::memcpy(prepared.data(), &header, sizeof(header));
  std::uint8_t* const panels = prepared.data() + sizeof(header);
  const std::int64_t count = ceil_div(out_features, layout.panel_rows);
  const std::int64_t tasks = task_count(parallel, count, out_features * in_features, kWorkPerTask);
  run_tasks(parallel, tasks, [&](std::int64_t task) {
    const Part part = part_of(count, tasks, task);
    for (std::int64_t panel = part.begin; panel < part.end; ++panel) {
      const std::int64_t row = panel * layout.panel_rows;
      layout.prepare_panel(codes.data() + row * row_bytes, row_bytes,
                           std::min(layout.panel_rows, out_features - row), in_features,
                           panels + panel * header.panel_bytes);
    }
  });
}

void product(const CpuKernels& kernels, Parallel& parallel, const PreparedProduct& args) {
  const PanelLayout& layout = checked_layout(kernels, args);
  if (args.weight_scale.size() != 1 &&
      static_cast<std::int64_t>(args.weight_scale.size()) != args.out_features) {
    throw Error("product: " + std::to_string(args.weight_scale.size()) + " weight scales, wanted 1 or " +
                std::to_string(args.out_features));
  }
  if (args.x.tokens <= 0) {
    return;
  }
  check_alignment(args.prepared.data());
  generic::product(parallel, {.kernels = kernels,
                              .layout = layout,
                              .out_features = args.out_features,
                              .in_features = args.in_features,
                              .panels = args.prepared.data() + sizeof(Header),
                              .weight_scale = args.weight_scale.data(),
                              .weight_scale_per_row = args.weight_scale.size() != 1,
                              .x = args.x,
                              .bias = args.bias,
                              .y_type = args.y_type,
                              .y = args.y});
}

}  // namespace trit
