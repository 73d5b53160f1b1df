// SPDX-License-Identifier: MIT
//
// A model in the stored form (format.h): "<name>" the codes, "<name>_scale" the scale. A file has one size of
// groups, the largest that divides those of all of its matrices.
#include <algorithm>

#include "io/safetensors_checkpoint.h"
#include "io/safetensors_stream.h"
#include "io/scale_rows.h"
#include "io/write_plan.h"

namespace trit::io {
namespace {

/// What an entry of the file is made of.
struct Part {
  const PlannedTensor* planned;
  bool is_scale = false;          // the entry "<name>_scale"
  std::vector<float> scale = {};  // its values without groups; those of groups are read when they are written
  bool half = false;              // groups: float16 holds them exactly
};

/// The scales of a matrix with groups, in groups of `group` inputs: a larger one of the source becomes several.
void write_group_scales(const WritePlan& plan, const Part& part, std::int64_t group, const Sink& sink) {
  const ScaleRows rows(plan.source, *part.planned->tensor);
  const std::int64_t groups = groups_of(part.planned->tensor->shape[1], group);
  std::vector<float> floats(static_cast<std::size_t>(groups));
  std::vector<std::uint16_t> halves(floats.size());
  constexpr std::size_t kBytesAtOnce = 1 << 16;
  std::vector<std::byte> buffer;
  rows.for_each_row([&](std::int64_t, std::span<const float> scales) {
    for (std::int64_t i = 0; i < groups; ++i) {
      floats[static_cast<std::size_t>(i)] = scales[static_cast<std::size_t>(i * group / rows.group())];
    }
    std::ranges::transform(floats, halves.begin(), float_to_float16);
    const auto bytes = part.half ? std::as_bytes(std::span(halves)) : std::as_bytes(std::span(floats));
    buffer.insert(buffer.end(), bytes.begin(), bytes.end());
    if (buffer.size() >= kBytesAtOnce) {
      sink(buffer);
      buffer.clear();
    }
  });
  sink(buffer);
  plan.source.release(*part.planned->tensor);
}

}  // namespace

void write_trit(const WritePlan& plan, const std::filesystem::path& out) {
  Metadata metadata = plan.metadata;
  metadata["trit.version"] = "1";
  metadata["trit.layout"] = "rows-2bit";
  metadata["trit.scale"] = "multiply";
  const std::int64_t group = common_group(plan);
  if (group != 0) {
    metadata[std::string(kGroupKey)] = std::to_string(group);
  }
  std::vector<SafetensorsEntry> entries;
  std::vector<Part> parts;
  for (const PlannedTensor& planned : plan.tensors) {
    const TensorInfo& tensor = *planned.tensor;
    parts.push_back({&planned});
    if (tensor.kind != TensorKind::ternary) {
      entries.push_back({planned.name, std::string(tensor.type), {tensor.shape.begin(), tensor.shape.end()}});
      continue;
    }
    // Of a stack of matrices all dimensions but the last, the inputs.
    const auto shape = tensor.shape_in_file();
    const std::vector<std::int64_t> rows(shape.begin(), shape.end() - 1);
    const auto with_last = [&rows](std::int64_t last) {
      std::vector<std::int64_t> all = rows;
      all.push_back(last);
      return all;
    };
    entries.push_back({planned.name, "U8", with_last(packed_row_bytes(tensor.shape[1]))});
    Part& part = parts.emplace_back(Part{&planned, true});
    SafetensorsEntry& entry = entries.emplace_back(SafetensorsEntry{planned.name + "_scale", "F32", {}});
    const ScaleRows scales(plan.source, tensor);
    if (scales.group() != 0) {
      part.half = fit_float16(scales);
      entry.dtype = part.half ? "F16" : "F32";
      entry.shape = with_last(groups_of(tensor.shape[1], group));
    } else {
      part.scale.assign(scales.fixed().begin(), scales.fixed().end());
      entry.shape = part.scale.size() == 1 ? std::vector<std::int64_t>{1} : rows;
    }
    plan.source.release(tensor);
    if (tensor.shape[1] % 4 != 0) {
      metadata[in_features_key(planned.name)] = std::to_string(tensor.shape[1]);
    }
  }
  SafetensorsStream stream(out, entries, metadata);
  Progress progress(plan);
  const Sink sink = [&](std::span<const std::byte> bytes) { stream.write(bytes); };
  for (const std::size_t index : stream.order()) {
    const Part& part = parts[index];
    const TensorInfo& tensor = *part.planned->tensor;
    if (part.is_scale && part.scale.empty()) {
      write_group_scales(plan, part, group, sink);
    } else if (part.is_scale) {
      sink(std::as_bytes(std::span(part.scale)));
    } else if (tensor.kind == TensorKind::ternary) {
      for_each_rows(plan, tensor, progress,
                    [&](std::span<const std::uint8_t> codes, std::int64_t, std::int64_t) {
                      sink(std::as_bytes(codes));
                    });
    } else {
      copy_elements(plan, tensor, sink, progress);
    }
  }
  stream.commit();
}

}  // namespace trit::io
