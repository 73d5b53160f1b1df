// SPDX-License-Identifier: MIT
//
// A model in the stored form (format.h): "<name>" the codes, "<name>_scale" the scale.
#include "io/dtype.h"
#include "io/safetensors_checkpoint.h"
#include "io/safetensors_stream.h"
#include "io/write_plan.h"

namespace trit::io {
namespace {

/// What an entry of the file is made of.
struct Part {
  const PlannedTensor* planned;
  std::vector<float> scale;  // of the entry "<name>_scale"
};

}  // namespace

void write_trit(const WritePlan& plan, const std::filesystem::path& out) {
  Metadata metadata = plan.metadata;
  metadata["trit.version"] = "1";
  metadata["trit.layout"] = "rows-2bit";
  metadata["trit.scale"] = "multiply";
  std::vector<SafetensorsEntry> entries;
  std::vector<Part> parts;
  for (const PlannedTensor& planned : plan.tensors) {
    const TensorInfo& tensor = *planned.tensor;
    if (tensor.kind != TensorKind::ternary) {
      entries.push_back({planned.name, std::string(tensor.type), {tensor.shape.begin(), tensor.shape.end()}});
      parts.push_back({&planned, {}});
      continue;
    }
    entries.push_back({planned.name, "U8", {tensor.shape[0], packed_row_bytes(tensor.shape[1])}});
    parts.push_back({&planned, {}});
    parts.push_back({&planned, read_scale(plan, tensor)});
    entries.push_back(
        {planned.name + "_scale", "F32", {static_cast<std::int64_t>(parts.back().scale.size())}});
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
    if (!part.scale.empty()) {
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
