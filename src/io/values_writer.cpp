// SPDX-License-Identifier: MIT
//
// safetensors without anything packed, for programs that know floats alone: a ternary matrix becomes the values
// t * scale, float16 where that holds all of its scales exactly, else float32. Nothing is rounded, so
// ternary_values() gives the matrix back.
#include <algorithm>
#include <array>

#include "io/codecs/codes.h"
#include "io/safetensors_stream.h"
#include "io/scale_rows.h"
#include "io/write_plan.h"

namespace trit::io {
namespace {

/// t * scale of codes t + 1.
void fill(std::span<const std::uint8_t> codes, float scale, float* values) {
  const std::array<float, 3> of{-scale, 0, scale};
  for (const std::uint8_t code : codes) {
    *values++ = of[code];
  }
}
void fill(std::span<const std::uint8_t> codes, std::uint16_t half_scale, std::uint16_t* values) {
  const std::array<std::uint16_t, 3> of{static_cast<std::uint16_t>(half_scale | 0x8000U), 0, half_scale};
  for (const std::uint8_t code : codes) {
    *values++ = of[code];
  }
}

void write_matrix(const WritePlan& plan, const TensorInfo& tensor, bool half, const Sink& sink,
                  Progress& progress) {
  const auto inputs = static_cast<std::size_t>(tensor.shape[1]);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
  const ScaleRows scales(plan.source, tensor);
  const auto group = static_cast<std::size_t>(scales.inputs());
  const auto groups = static_cast<std::size_t>(scales.groups());
  std::vector<float> of_rows;
  std::vector<std::uint8_t> codes(inputs);
  std::vector<float> values(inputs);
  std::vector<std::uint16_t> halves(inputs);
  for_each_rows(plan, tensor, progress,
                [&](std::span<const std::uint8_t> packed, std::int64_t first, std::int64_t rows) {
                  of_rows.resize(static_cast<std::size_t>(rows) * groups);
                  scales.read(first, rows, of_rows);
                  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
                    unpack_codes(packed.subspan(row * row_bytes, row_bytes), codes);
                    for (std::size_t g = 0; g < groups; ++g) {
                      const std::size_t begin = g * group;
                      const std::size_t end = std::min(begin + group, inputs);
                      if (half) {
                        fill(std::span(codes).subspan(begin, end - begin),
                             float_to_float16(of_rows[row * groups + g]), &halves[begin]);
                      } else {
                        fill(std::span(codes).subspan(begin, end - begin), of_rows[row * groups + g],
                             &values[begin]);
                      }
                    }
                    sink(half ? std::as_bytes(std::span(halves)) : std::as_bytes(std::span(values)));
                  }
                });
}

}  // namespace

void write_values(const WritePlan& plan, const std::filesystem::path& out) {
  std::vector<SafetensorsEntry> entries;
  std::vector<bool> half;
  for (const PlannedTensor& planned : plan.tensors) {
    const TensorInfo& tensor = *planned.tensor;
    const auto shape = tensor.shape_in_file();
    std::string type(tensor.type);
    half.push_back(tensor.kind == TensorKind::ternary && fit_float16(ScaleRows(plan.source, tensor)));
    if (tensor.kind == TensorKind::ternary) {
      type = half.back() ? "F16" : "F32";
      plan.source.release(tensor);
    }
    entries.push_back({planned.name, std::move(type), {shape.begin(), shape.end()}});
  }
  Metadata metadata = plan.metadata;
  metadata["format"] = "pt";
  SafetensorsStream stream(out, entries, metadata);
  Progress progress(plan);
  const Sink sink = [&](std::span<const std::byte> bytes) { stream.write(bytes); };
  for (const std::size_t index : stream.order()) {
    const TensorInfo& tensor = *plan.tensors[index].tensor;
    if (tensor.kind == TensorKind::ternary) {
      write_matrix(plan, tensor, half[index], sink, progress);
    } else {
      copy_elements(plan, tensor, sink, progress);
    }
  }
  stream.commit();
}

}  // namespace trit::io
