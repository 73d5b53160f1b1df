// SPDX-License-Identifier: MIT
//
// What convert() gives to the writer of a format: the tensors under their new names, and the metadata.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "trit/io.h"

namespace trit::io {

struct PlannedTensor {
  std::string name;
  const TensorInfo* tensor = nullptr;
};

struct WritePlan {
  const Checkpoint& source;
  std::vector<PlannedTensor> tensors;  // by name, without duplicates
  Metadata metadata;                   // "trit.model", "huggingface.config", ...
  const ConvertOptions& options;

  /// The planned tensor of this name, or null.
  const PlannedTensor* find(std::string_view name) const;
};

/// Counts the bytes of the source that have been read, for ConvertOptions::progress.
class Progress {
 public:
  explicit Progress(const WritePlan& plan);
  void add(std::uint64_t bytes);

 private:
  const std::function<void(std::uint64_t, std::uint64_t)>& report_;
  std::uint64_t done_ = 0, total_ = 0;
};

/// Where a writer puts bytes.
using Sink = std::function<void(std::span<const std::byte>)>;

/// The inputs of a group that all matrices of the plan with groups can have: their greatest common divisor; 0 if
/// none has groups.
std::int64_t common_group(const WritePlan& plan);

/// Rows to read at a time: about a megabyte of codes.
std::int64_t rows_per_read(const TensorInfo& tensor);

/// The units of Checkpoint::read_elements: elements of a floating or other tensor, bytes of any other.
struct Elements {
  std::int64_t count = 0;
  std::int64_t bits = 8;  // of one
  /// The size of so many elements, which must end at a byte.
  std::int64_t bytes(std::int64_t elements) const { return elements / 8 * bits + elements % 8 * bits / 8; }
};
Elements elements_of(const TensorInfo& tensor);

/// Streams the elements, or the bytes, of a tensor to `sink`.
void copy_elements(const WritePlan& plan, const TensorInfo& tensor, const Sink& sink, Progress& progress);
/// Calls found(codes, first_row, rows) for the rows of a ternary tensor, packed, some at a time.
using FoundRows =
    std::function<void(std::span<const std::uint8_t> codes, std::int64_t first_row, std::int64_t rows)>;
void for_each_rows(const Checkpoint& source, const TensorInfo& tensor, const FoundRows& found);
/// The same for a writer.
void for_each_rows(const WritePlan& plan, const TensorInfo& tensor, Progress& progress,
                   const FoundRows& found);

/// Metadata keys that only the stored form itself has.
bool is_own_form_key(std::string_view key);

/// The formats that can hold the matrix, for messages: "trit, hf, gguf with q2_0". `scale` [1] or [N], or some
/// scales of a matrix with groups of `group` inputs.
std::string formats_that_hold(const TensorInfo& tensor, std::span<const float> scale, std::int64_t group);

/// The writers. Each checks that its format can hold the plan, and throws Error, before it writes anything.
void write_trit(const WritePlan& plan, const std::filesystem::path& out);
void write_gguf(const WritePlan& plan, const std::filesystem::path& out);
void write_huggingface(const WritePlan& plan, const std::filesystem::path& out);
/// safetensors, ternary matrices as floats.
void write_values(const WritePlan& plan, const std::filesystem::path& out);

}  // namespace trit::io
