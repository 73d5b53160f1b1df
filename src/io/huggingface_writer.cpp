// SPDX-License-Identifier: MIT
//
// A folder that transformers loads: config.json with a quantization_config, and model.safetensors or shards
// and their index. The matrices are packed (codecs/huggingface.h) with one scale each, in the convention that
// the linear_class of the config stands for:
//   bitlinear       W = t / weight_scale    y = x W^T + bias
//   autobitlinear   W = t * weight_scale    y = (x t^T + bias') * weight_scale, so bias' = bias /
//   weight_scale
#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "io/atomic_folder.h"
#include "io/codecs/codes.h"
#include "io/codecs/huggingface.h"
#include "io/huggingface_outputs.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using Output = HuggingFaceOutput;

void write_packed(const WritePlan& plan, const TensorInfo& tensor, SafetensorsStream& stream,
                  Progress& progress) {
  const auto inputs = static_cast<std::size_t>(tensor.shape[1]);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
  const std::int64_t shared_rows = tensor.shape[0] / 4;
  const std::int64_t at_once = std::min(rows_per_read(tensor), shared_rows);
  std::array<std::vector<std::uint8_t>, 4> packed;
  std::array<std::vector<std::uint8_t>, 4> codes;
  for (std::size_t field = 0; field < 4; ++field) {
    packed[field].resize(static_cast<std::size_t>(at_once) * row_bytes);
    codes[field].resize(inputs);
  }
  std::vector<std::uint8_t> bytes;
  for (std::int64_t first = 0; first < shared_rows; first += at_once) {
    const std::int64_t rows = std::min(at_once, shared_rows - first);
    for (std::size_t field = 0; field < 4; ++field) {
      plan.source.read_codes(tensor, static_cast<std::int64_t>(field) * shared_rows + first, rows,
                             std::span(packed[field]).first(static_cast<std::size_t>(rows) * row_bytes));
    }
    bytes.resize(static_cast<std::size_t>(rows) * inputs);
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      for (std::size_t field = 0; field < 4; ++field) {
        unpack_codes(std::span(packed[field]).subspan(row * row_bytes, row_bytes), codes[field]);
      }
      huggingface::encode_rows(codes[0], codes[1], codes[2], codes[3],
                               std::span(bytes).subspan(row * inputs, inputs));
    }
    stream.write(std::as_bytes(std::span(bytes)));
    progress.add(tensor.stored_bytes / static_cast<std::uint64_t>(shared_rows) *
                 static_cast<std::uint64_t>(rows));
  }
  plan.source.release(tensor);
}

void write_file(const WritePlan& plan, const std::filesystem::path& path, std::span<const Output> outputs,
                const Metadata& metadata, Progress& progress) {
  std::vector<SafetensorsEntry> entries;
  for (const Output& output : outputs) {
    entries.push_back(output.entry);
  }
  SafetensorsStream stream(path, entries, metadata);
  for (const std::size_t index : stream.order()) {
    const Output& output = outputs[index];
    switch (output.kind) {
      case Output::Kind::values:
        stream.write(std::as_bytes(std::span(output.values)));
        break;
      case Output::Kind::packed:
        write_packed(plan, *output.planned->tensor, stream, progress);
        break;
      case Output::Kind::elements:
        copy_elements(
            plan, *output.planned->tensor, [&](std::span<const std::byte> bytes) { stream.write(bytes); },
            progress);
    }
  }
  stream.commit();
}

/// Indexes of the first output of each file, and the end.
std::vector<std::size_t> cut(std::span<const Output> outputs, std::uint64_t shard_bytes) {
  std::vector<std::size_t> cuts{0};
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (shard_bytes != 0 && bytes != 0 && bytes + outputs[i].bytes > shard_bytes) {
      cuts.push_back(i);
      bytes = 0;
    }
    bytes += outputs[i].bytes;
  }
  cuts.push_back(outputs.size());
  return cuts;
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  write_file_atomically(path, std::span(&bytes, 1));
}

}  // namespace

void write_huggingface(const WritePlan& plan, const std::filesystem::path& out) {
  const HuggingFaceModel model = plan_huggingface(plan);
  const std::vector<Output>& outputs = model.outputs;
  Metadata metadata = plan.metadata;
  metadata.erase("huggingface.config");
  metadata["format"] = "pt";

  AtomicFolder folder(out);
  Progress progress(plan);
  const std::vector<std::size_t> cuts = cut(outputs, plan.options.shard_bytes);
  const std::size_t files = cuts.size() - 1;
  nlohmann::json index;
  std::uint64_t total = 0;
  for (std::size_t file = 0; file < files; ++file) {
    std::array<char, 64> name{"model.safetensors"};
    if (files > 1) {
      std::snprintf(name.data(), name.size(), "model-%05zu-of-%05zu.safetensors", file + 1, files);
    }
    const auto part = std::span(outputs).subspan(cuts[file], cuts[file + 1] - cuts[file]);
    write_file(plan, folder.folder() / name.data(), part, metadata, progress);
    for (const Output& output : part) {
      index["weight_map"][output.entry.name] = name.data();
      total += output.bytes;
    }
  }
  if (files > 1) {
    index["metadata"]["total_size"] = total;
    write_text(folder.folder() / "model.safetensors.index.json", index.dump(2) + "\n");
  }
  write_text(folder.folder() / "config.json", model.config);
  folder.commit();
}

}  // namespace trit::io
