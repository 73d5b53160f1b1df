// SPDX-License-Identifier: MIT
#include <algorithm>

#include "io/dtype.h"
#include "io/float_elements.h"
#include "io/tensor_names.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::io {

struct MemoryCheckpoint::Stored {
  std::string name;
  std::string type;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;  // of elements
  TernaryMatrix matrix;          // or this
};

MemoryCheckpoint::MemoryCheckpoint() {
  format_ = Format::memory;
  path_ = "(memory)";
  description_ = "in memory";
}
MemoryCheckpoint::~MemoryCheckpoint() = default;

TensorInfo& MemoryCheckpoint::insert(std::unique_ptr<Stored> stored) {
  check_tensor_name(stored->name, path_.string());
  if (find(stored->name) != nullptr) {
    throw Error(path_.string() + ": the tensor " + quoted_name(stored->name) + " was added twice");
  }
  TensorInfo info;
  info.name = stored->name;
  info.type = stored->type;
  info.shape = stored->shape;
  info.index = stored_.size();
  stored_.push_back(std::move(stored));
  return *tensors_.insert(std::ranges::lower_bound(tensors_, info.name, {}, &TensorInfo::name), info);
}

void MemoryCheckpoint::add(std::string name, TernaryMatrix matrix) {
  check(matrix.view(), name);
  auto stored = std::make_unique<Stored>();
  stored->name = std::move(name);
  stored->type = "rows-2bit";
  stored->shape = {matrix.out_features, matrix.in_features};
  stored->matrix = std::move(matrix);
  const std::uint64_t bytes = stored->matrix.codes.size() + stored->matrix.scale.size() * sizeof(float);
  TensorInfo& info = insert(std::move(stored));
  info.kind = TensorKind::ternary;
  info.stored_bytes = bytes;
}

void MemoryCheckpoint::add(std::string name, std::string type, std::vector<std::int64_t> shape,
                           std::vector<std::byte> bytes) {
  const auto wanted = checked_bytes(type, shape);
  if (dtype_bits(type) == 0 || !wanted || static_cast<std::uint64_t>(*wanted) != bytes.size()) {
    throw Error(path_.string() + ": tensor " + quoted_name(name) + ": " + std::to_string(bytes.size()) +
                " bytes do not fit " + type + " " + shape_text(shape) + "; types are " + dtype_names());
  }
  auto stored = std::make_unique<Stored>();
  stored->name = std::move(name);
  stored->type = std::move(type);
  stored->shape = std::move(shape);
  stored->bytes = std::move(bytes);
  const std::uint64_t size = stored->bytes.size();
  TensorInfo& info = insert(std::move(stored));
  info.kind = is_float_dtype(info.type) ? TensorKind::floating : TensorKind::other;
  info.stored_bytes = size;
}

void MemoryCheckpoint::add(std::string name, std::vector<std::int64_t> shape, std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  add(std::move(name), "F32", std::move(shape), {bytes.begin(), bytes.end()});
}

void MemoryCheckpoint::set_metadata(std::string key, std::string value) {
  metadata_[std::move(key)] = std::move(value);
}

std::int64_t MemoryCheckpoint::group(const TensorInfo& tensor) const {
  return stored_[tensor.index]->matrix.group;
}

void MemoryCheckpoint::read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                                         std::span<float> scales) const {
  const TernaryMatrix& matrix = stored_[tensor.index]->matrix;
  const std::int64_t in_row = groups_of(matrix.in_features, matrix.group);
  std::copy_n(matrix.scale.begin() + first_row * in_row, rows * in_row, scales.begin());
}

std::vector<float> MemoryCheckpoint::scale(const TensorInfo& tensor) const {
  return stored_[tensor.index]->matrix.scale;
}

void MemoryCheckpoint::read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t,
                                  std::span<std::uint8_t> codes) const {
  const TernaryMatrix& matrix = stored_[tensor.index]->matrix;
  std::copy_n(matrix.codes.begin() + first_row * packed_row_bytes(matrix.in_features), codes.size(),
              codes.begin());
}

void MemoryCheckpoint::read_elements(const TensorInfo& tensor, std::int64_t first,
                                     std::span<std::byte> bytes) const {
  const std::int64_t begin = bytes_of_elements(tensor.type, first);
  std::copy_n(stored_[tensor.index]->bytes.begin() + begin, bytes.size(), bytes.begin());
}

}  // namespace trit::io
