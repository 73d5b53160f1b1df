// SPDX-License-Identifier: MIT
//
// A checkpoint with other names, types and orders of rows than its source (llama_cpp_names.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf_architecture.h"
#include "io/rotation.h"
#include "io/tensor_names.h"
#include "io/write_plan.h"
#include "trit/error.h"

namespace trit::io {

/// Metadata key: JSON, transformers' name -> type, of the tensors that were made float32 for llama.cpp.
inline constexpr std::string_view kTypesKey = "trit.stored_types";

class RenamedCheckpoint final : public Checkpoint {
 public:
  explicit RenamedCheckpoint(const Checkpoint& source) : source_(source) {
    describe_as(source);
    gguf_pairs_.clear();  // of the new names: set_pairs
  }

  /// A tensor with the name, the type and the order of rows that it gets.
  struct Change {
    std::string_view name;
    std::string_view type = {};  // empty: as it is
    std::int64_t head_size = 0;  // of the rows that are reordered; 0: none are
  };
  void add(const TensorInfo& tensor, const Change& change) {
    TensorInfo& added = tensors_.emplace_back(tensor);
    added.name = names_.emplace_back(change.name);
    if (!change.type.empty()) {
      added.type = change.type;
      added.stored_bytes = static_cast<std::uint64_t>(elements_of(added).bytes(elements_of(added).count));
    }
    added.index = originals_.size();
    originals_.push_back({&tensor, change.head_size});
  }
  void set_metadata(std::string_view key, std::string value) {
    metadata_[std::string(key)] = std::move(value);
  }
  void drop_metadata(std::string_view key) { metadata_.erase(std::string(key)); }
  void set_pairs(const gguf::Model& model, std::string_view architecture, std::string_view name) {
    gguf_pairs_ = gguf::make_pairs(model, architecture, name, pair_bytes_);
  }
  /// `to_llama_cpp`: rows are read in llama.cpp's order and stored in transformers'.
  void finish(bool to_llama_cpp) {
    to_llama_cpp_ = to_llama_cpp;
    sort_tensors();
    rename_rotation(metadata_, [&](std::string_view name) -> std::optional<std::string> {
      const auto at = std::ranges::find_if(
          tensors_, [&](const TensorInfo& tensor) { return original(tensor).name == name; });
      return at == tensors_.end() ? std::nullopt : std::optional(std::string(at->name));
    });
  }

  std::int64_t group(const TensorInfo& tensor) const override { return source_.group(original(tensor)); }

  std::vector<float> scale(const TensorInfo& tensor) const override {
    std::vector<float> scale = source_.scale(original(tensor));
    if (scale.size() > 1 && head_size(tensor) != 0) {
      const std::vector<float> in_order = scale;
      const auto groups = static_cast<std::size_t>(groups_of(tensor.shape[1], group(tensor)));
      for (std::size_t i = 0; i < scale.size(); ++i) {
        const std::int64_t row = original_row(tensor, static_cast<std::int64_t>(i / groups));
        scale[i] = in_order[static_cast<std::size_t>(row) * groups + i % groups];
      }
    }
    return scale;
  }

  void read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                         std::span<float> scales) const override {
    if (head_size(tensor) == 0) {
      source_.read_group_scales(original(tensor), first_row, rows, scales);
      return;
    }
    const auto groups = static_cast<std::size_t>(groups_of(tensor.shape[1], group(tensor)));
    for (std::int64_t row = 0; row < rows; ++row) {
      source_.read_group_scales(original(tensor), original_row(tensor, first_row + row), 1,
                                scales.subspan(static_cast<std::size_t>(row) * groups, groups));
    }
  }

  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> codes) const override {
    if (head_size(tensor) == 0) {
      source_.read_codes(original(tensor), first_row, rows, codes);
      return;
    }
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
    for (std::int64_t row = 0; row < rows; ++row) {
      source_.read_codes(original(tensor), original_row(tensor, first_row + row), 1,
                         codes.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes));
    }
  }

  void read_elements(const TensorInfo& tensor, std::int64_t first,
                     std::span<std::byte> bytes) const override {
    if (head_size(tensor) == 0) {
      read_converted(tensor, first, bytes);
      return;
    }
    const std::int64_t count = elements_of(tensor).count;
    const std::int64_t size =
        elements_of(tensor).bytes(1);  // only tensors of whole bytes have rows to reorder
    const std::int64_t in_row = count / tensor.shape[0];
    for (std::size_t done = 0; done < bytes.size();) {
      const std::int64_t at = first + static_cast<std::int64_t>(done) / size;
      const std::int64_t column = at % in_row;
      const std::size_t part =
          std::min(bytes.size() - done, static_cast<std::size_t>((in_row - column) * size));
      read_converted(tensor, original_row(tensor, at / in_row) * in_row + column, bytes.subspan(done, part));
      done += part;
    }
  }

  void release(const TensorInfo& tensor) const override { source_.release(original(tensor)); }

 private:
  struct Original {
    const TensorInfo* tensor = nullptr;
    std::int64_t head_size = 0;
  };

  const TensorInfo& original(const TensorInfo& tensor) const { return *originals_[tensor.index].tensor; }
  std::int64_t head_size(const TensorInfo& tensor) const { return originals_[tensor.index].head_size; }
  std::int64_t original_row(const TensorInfo& tensor, std::int64_t row) const {
    return to_llama_cpp_ ? gguf::row_in_huggingface(row, head_size(tensor))
                         : gguf::row_in_llama_cpp(row, head_size(tensor));
  }

  /// Elements of the original, in the type that the tensor has here: float32, or what it was before.
  void read_converted(const TensorInfo& tensor, std::int64_t first, std::span<std::byte> bytes) const {
    const TensorInfo& from = original(tensor);
    if (from.type == tensor.type) {
      source_.read_elements(from, first, bytes);
      return;
    }
    const auto size = static_cast<std::size_t>(elements_of(tensor).bytes(1));
    std::vector<float> values(bytes.size() / size);
    source_.read_floats(from, first, values);
    if (tensor.type == "F32") {
      std::memcpy(bytes.data(), values.data(), bytes.size());
      return;
    }
    const bool bfloat16 = tensor.type == "BF16";
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint16_t bits = bfloat16 ? float_to_bfloat16(values[i]) : float_to_float16(values[i]);
      const float back = bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
      if (back != values[i] && !std::isnan(values[i])) {
        throw Error(path_.string() + ": tensor " + quoted_name(from.name) + ": element " +
                    std::to_string(first + static_cast<std::int64_t>(i)) + " is not a " +
                    std::string(tensor.type) + ", wanted one as the key " + std::string(kTypesKey) + " says");
      }
      std::memcpy(bytes.data() + i * size, &bits, size);
    }
  }

  const Checkpoint& source_;
  std::deque<std::string> names_;
  std::vector<Original> originals_;
  gguf::ByteWriter pair_bytes_;
  bool to_llama_cpp_ = false;
};

}  // namespace trit::io
