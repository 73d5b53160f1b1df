// SPDX-License-Identifier: MIT
#include "trit/prepared.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "base/integer.h"
#include "base/tasks.h"
#include "cpu/generic/panel_scales.h"
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
  DataType scale_type;        // of group scales
  std::uint8_t are_scalable;  // likewise, 0 or 1
  std::array<std::uint8_t, 4> zeros;
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t panel_rows;
  std::int64_t panel_bytes;
  std::int64_t group;
  std::array<std::uint8_t, 8> more_zeros;
};
static_assert(sizeof(Header) == kPreparedAlignment);

std::string shape_text(std::int64_t out_features, std::int64_t in_features) {
  return "[" + std::to_string(out_features) + ", " + std::to_string(in_features) + "]";
}

Header header_of(const CpuKernels& kernels, const PanelLayout& layout, std::int64_t out_features,
                 std::int64_t in_features, std::int64_t group) {
  if (out_features < 1 || in_features < 1 || in_features > kMaxInFeatures) {
    throw Error("prepared weight " + shape_text(out_features, in_features) +
                ": wanted at least [1, 1] and at most " + std::to_string(kMaxInFeatures) +
                " inputs, since sums are 32-bit");
  }
  if (group != 0 && !is_group_size(group)) {
    throw Error("prepared weight " + shape_text(out_features, in_features) + ": groups of " +
                std::to_string(group) + " inputs, wanted a multiple of " + std::to_string(kGroupStep));
  }
  return {.magic = kMagic,
          .backend = kernels.backend,
          .format = layout.format,
          .scale_type = DataType::float32,
          .are_scalable = 0,
          .zeros = {},
          .out_features = out_features,
          .in_features = in_features,
          .panel_rows = layout.panel_rows,
          .panel_bytes = packed_row_bytes(in_features) * layout.panel_bytes_per_4,
          .group = group,
          .more_zeros = {}};
}

std::int64_t panels_of(const Header& header) { return ceil_div(header.out_features, header.panel_rows); }

/// Where group scales begin, counted from the first panel.
std::int64_t scales_begin(const Header& header) {
  return round_up(panels_of(header) * header.panel_bytes, std::int64_t{kPreparedAlignment});
}

std::size_t total_bytes(const Header& header) {
  const std::int64_t rows = panels_of(header) * header.panel_rows;
  return sizeof(Header) +
         static_cast<std::size_t>(header.group == 0 ? panels_of(header) * header.panel_bytes
                                                    : scales_begin(header) +
                                                          rows * groups_of(header.in_features, header.group) *
                                                              std::int64_t{sizeof(float)});
}

void check_alignment(const void* bytes) {
  if (reinterpret_cast<std::uintptr_t>(bytes) % kPreparedAlignment != 0) {
    throw Error("prepared weight: it begins " +
                std::to_string(reinterpret_cast<std::uintptr_t>(bytes) % kPreparedAlignment) +
                " bytes behind a cache line, wanted at one");
  }
}

// The header of these bytes, once they are known to be what the product expects.
Header checked_header(const CpuKernels& kernels, const PreparedProduct& args) {
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
  Header wanted = header_of(kernels, generic::layout_of(kernels, header.format, args.group),
                            args.out_features, args.in_features, args.group);
  if (args.group != 0) {
    wanted.scale_type = header.scale_type == DataType::float16 ? DataType::float16 : DataType::float32;
    wanted.are_scalable = header.are_scalable != 0 ? 1 : 0;
  }
  if (std::memcmp(&header, &wanted, sizeof(header)) != 0) {
    throw Error(what + "these bytes hold " + shape_text(header.out_features, header.in_features) + " as " +
                std::string(name_of(header.format)) +
                (header.group == 0
                     ? std::string()
                     : " with scales for groups of " + std::to_string(header.group) + " inputs") +
                (args.group == 0 ? std::string() : ", wanted groups of " + std::to_string(args.group)));
  }
  if (args.prepared.size() != total_bytes(wanted)) {
    throw Error(what + std::to_string(args.prepared.size()) + " bytes, wanted " +
                std::to_string(total_bytes(wanted)));
  }
  return header;
}

}  // namespace

std::size_t prepared_bytes(const CpuKernels& kernels, PanelFormat format, std::int64_t out_features,
                           std::int64_t in_features, std::int64_t group) {
  return total_bytes(
      header_of(kernels, generic::layout_of(kernels, format, group), out_features, in_features, group));
}

void prepare_weight(const CpuKernels& kernels, Parallel& parallel, const TernaryView& weight,
                    PanelFormat format, std::span<std::uint8_t> prepared) {
  const PanelLayout& layout = generic::layout_of(kernels, format, weight.group);
  const std::int64_t out_features = weight.out_features, in_features = weight.in_features;
  const std::span<const std::uint8_t> codes = weight.codes;
  Header header = header_of(kernels, layout, out_features, in_features, weight.group);
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  if (static_cast<std::int64_t>(codes.size()) != out_features * row_bytes ||
      prepared.size() != total_bytes(header)) {
    throw Error("prepare_weight " + shape_text(out_features, in_features) + ": " +
                std::to_string(codes.size()) + " bytes of codes to " + std::to_string(prepared.size()) +
                ", wanted " + std::to_string(out_features * row_bytes) + " to " +
                std::to_string(total_bytes(header)));
  }
  if (weight.group != 0) {
    if (std::ssize(weight.scale) != out_features * groups_of(in_features, weight.group)) {
      throw Error("prepare_weight " + shape_text(out_features, in_features) + ": " +
                  std::to_string(weight.scale.size()) + " scales, wanted " +
                  std::to_string(out_features * groups_of(in_features, weight.group)));
    }
    header.scale_type = generic::panel_scale_type(weight.scale);
    header.are_scalable = generic::are_scalable(weight.scale) ? 1 : 0;
  }
  check_alignment(prepared.data());
  std::memcpy(prepared.data(), &header, sizeof(header));
  std::uint8_t* const panels = prepared.data() + sizeof(header);
  std::uint8_t* const scales = panels + scales_begin(header);
  const std::int64_t scale_bytes =
      weight.group == 0
          ? 0
          : generic::panel_scale_bytes(layout, groups_of(in_features, weight.group), header.scale_type);
  const std::int64_t count = panels_of(header);
  const std::int64_t tasks = task_count(parallel, count, out_features * in_features, kWorkPerTask);
  run_tasks(parallel, tasks, [&](std::int64_t task) {
    const Part part = part_of(count, tasks, task);
    for (std::int64_t panel = part.begin; panel < part.end; ++panel) {
      const std::int64_t row = panel * layout.panel_rows;
      const std::int64_t rows = std::min(layout.panel_rows, out_features - row);
      layout.prepare_panel(codes.data() + row * row_bytes, row_bytes, rows, in_features,
                           panels + panel * header.panel_bytes);
      if (weight.group != 0) {
        generic::prepare_panel_scales(weight, row, rows, layout.panel_rows, header.scale_type,
                                      scales + panel * scale_bytes);
      }
    }
  });
}

void product(const CpuKernels& kernels, Parallel& parallel, const PreparedProduct& args) {
  const Header header = checked_header(kernels, args);
  if (args.group == 0 && args.weight_scale.size() != 1 &&
      static_cast<std::int64_t>(args.weight_scale.size()) != args.out_features) {
    throw Error("product: " + std::to_string(args.weight_scale.size()) + " weight scales, wanted 1 or " +
                std::to_string(args.out_features));
  }
  if (args.x.tokens <= 0) {
    return;
  }
  if (args.x.group != 0 && args.x.group != args.group) {
    throw Error("product: token scales of " + std::to_string(args.x.group) +
                " inputs, but weight scales of " + std::to_string(args.group));
  }
  check_alignment(args.prepared.data());
  const std::uint8_t* const panels = args.prepared.data() + sizeof(Header);
  generic::product(parallel, {.kernels = kernels,
                              .layout = generic::layout_of(kernels, header.format, args.group),
                              .out_features = args.out_features,
                              .in_features = args.in_features,
                              .panels = panels,
                              .weight_scale = args.weight_scale.data(),
                              .weight_scale_per_row = args.weight_scale.size() > 1,  // none with group scales
                              .x = args.x,
                              .bias = args.bias,
                              .y_type = args.y_type,
                              .y = args.y,
                              .group = args.group,
                              .group_scales = {panels + scales_begin(header), header.scale_type},
                              .group_scales_are_scalable = header.are_scalable != 0});
}

}  // namespace trit
