// SPDX-License-Identifier: MIT
//
// What all checkpoints share (trit/io.h).
#include <algorithm>
#include <array>

#include "base/names.h"
#include "io/dtype.h"
#include "io/float_elements.h"
#include "io/tensor_names.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::io {

std::string_view name_of(Format format) {
  static constexpr std::array<Named<Format>, 6> kNames{{{Format::trit, "trit"},
                                                        {Format::huggingface, "hf"},
                                                        {Format::gguf, "gguf"},
                                                        {Format::torchao, "torchao"},
                                                        {Format::safetensors, "safetensors"},
                                                        {Format::memory, "memory"}}};
  return name_in<Format>(kNames, format);
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(tensors_, name, {}, &TensorInfo::name);
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

void Checkpoint::describe_as(const Checkpoint& source) {
  format_ = source.format_;
  path_ = source.path_;
  description_ = source.description_;
  file_bytes_ = source.file_bytes_;
  metadata_ = source.metadata_;
  gguf_pairs_ = source.gguf_pairs_;
}

void Checkpoint::sort_tensors() {
  std::ranges::sort(tensors_, {}, &TensorInfo::name);
  const auto twice = std::ranges::adjacent_find(tensors_, {}, &TensorInfo::name);
  if (twice != tensors_.end()) {
    throw Error(path_.string() + ": the tensor " + quoted_name(twice->name) +
                " occurs twice, wanted distinct names");
  }
}

void Checkpoint::read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                                   std::span<float> scales) const {
  const std::vector<float> all = scale(tensor);
  const std::int64_t in_row = groups_of(tensor.shape[1], group(tensor));
  std::copy_n(all.begin() + first_row * in_row, rows * in_row, scales.begin());
}

void Checkpoint::read_floats(const TensorInfo& tensor, std::int64_t first, std::span<float> values) const {
  if (tensor.kind != TensorKind::floating) {
    throw Error(path_.string() + ": tensor " + quoted_name(tensor.name) + " is " + std::string(tensor.type) +
                ", wanted F32, F16, BF16 or F64");
  }
  const std::size_t size = dtype_size(tensor.type);
  if (size == sizeof(float)) {
    read_elements(tensor, first, std::as_writable_bytes(values));
    return;
  }
  std::array<std::byte, 8 * 1024> part;
  for (std::size_t done = 0; done < values.size();) {
    const std::size_t count = std::min(part.size() / size, values.size() - done);
    const auto bytes = std::span(part).first(count * size);
    read_elements(tensor, first + static_cast<std::int64_t>(done), bytes);
    elements_to_floats(tensor.type, bytes, values.subspan(done, count));
    done += count;
  }
}

}  // namespace trit::io
