// SPDX-License-Identifier: MIT
//
// safetensors without anything packed, for programs that know floats alone: a ternary matrix becomes the values
// t * scale, float16 where that holds all of its scales exactly, else float32. Nothing is rounded, so
// ternary_values() gives the matrix back.
#include <algorithm>

#include "io/codecs/codes.h"
#include "io/safetensors_stream.h"
#include "io/scale_rows.h"
#include "io/write_plan.h"

namespace trit::io {
namespace {

void write_matrix(const WritePlan& plan, const TensorInfo& tensor, bool half, const Sink& sink,
                  Progress& progress) {
  const auto inputs = static_cast<std::size_t>(tensor.shape[1]);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
  const ScaleRows scales(plan.source, tensor);
  const auto group = static_cast<std::size_t>(scales.inputs());
  std::vector<float> of_row(static_cast<std::size_t>(scales.groups()));
  std::vector<std::uint8_t> codes(inputs);
  std::vector<float> values(inputs);
  std::vector<std::uint16_t> halves(inputs);
  for_each_rows(plan, tensor, progress,
                [&](std::span<const std::uint8_t> packed, std::int64_t first, std::int64_t rows) {
                  for (std::int64_t row = 0; row < rows; ++row) {
                    scales.read(first + row, 1, of_row);
                    unpack_codes(packed.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes), codes);
                    for (std::size_t begin = 0; begin < inputs; begin += group) {
                      const float scale = of_row[begin / group];
                      for (std::size_t i = begin; i < std::min(begin + group, inputs); ++i) {
                        values[i] = static_cast<float>(codes[i] - 1) * scale;
                      }
                    }
                    if (half) {
                      std::ranges::transform(values, halves.begin(), float_to_float16);
                      sink(std::as_bytes(std::span(halves)));
                    } else {
                      sink(std::as_bytes(std::span(values)));
                    }
                  }
                });
}

}  // namespace

void write_values(const WritePlan& plan, const std::filesystem::path& out) {
  std::vector<SafetensorsEntry> entries;
  std::vector<bool> half;
  for (const PlannedTensor& planned : plan.tensors) {
    const TensorInfo& tensor = *planned.tensor;
    const auto shape = tensor.stack.empty() ? tensor.shape : tensor.stack;
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
