// SPDX-License-Identifier: MIT
//
// A checkpoint in safetensors files: a table that holds, for each tensor, where its data and its scale are
// and which codec reads them. One function per format fills the table.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  /// How a tensor is read.
  enum class Layout : std::uint8_t {
    elements,         // as stored
    scaled_elements,  // float, element * scale: the bias of autobitlinear
    rows_2bit,        // the stored form
    bitnet_packed,    // transformers: four rows share a byte
    bitnet_values,    // transformers: floats -1, 0, +1
    torchao_packed
  };
  struct Source {
    Layout layout = Layout::elements;
    const TensorView* data = nullptr;
    const TensorView* scale = nullptr;
    std::size_t file = 0;
    std::int64_t group = 0;  // inputs that share a scale; 0: a scale per tensor or row
  };

  SafetensorsCheckpoint(Format format, std::filesystem::path path) {
    format_ = format;
    path_ = std::move(path);
  }

  // For the functions that fill the table.
  const SafetensorsFile& add_file(SafetensorsFile file);
  const std::deque<SafetensorsFile>& files() const { return files_; }
  void add_elements(std::string_view name, const TensorView& view, std::size_t file);
  void add_scaled_elements(std::string_view name, const TensorView& view, const TensorView& scale,
                           std::size_t file);
  void add_ternary(std::string_view name, Layout layout, const TensorView& data, const TensorView& scale,
                   std::int64_t out_features, std::int64_t in_features, std::size_t file,
                   std::int64_t group = 0);
  /// A name that is not one of a file's.
  std::string_view keep(std::string name) { return names_.emplace_back(std::move(name)); }
  void set_convention(ScaleConvention convention) { convention_ = convention; }
  void finish(std::string description, Metadata metadata);

  std::int64_t group(const TensorInfo& tensor) const override { return sources_[tensor.index].group; }
  std::vector<float> scale(const TensorInfo& tensor) const override;
  void read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                         std::span<float> scales) const override;
  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> codes) const override;
  void read_elements(const TensorInfo& tensor, std::int64_t first, std::span<std::byte> bytes) const override;
  void release(const TensorInfo& tensor) const override;

 private:
  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& what) const;
  /// Values of the stored scale from `first` on. Error, naming the place, for one that is not positive.
  void read_scale(const TensorInfo& tensor, std::int64_t first, std::span<float> scale) const;

  std::deque<SafetensorsFile> files_;
  std::vector<Source> sources_;
  std::deque<std::array<std::int64_t, 2>> matrix_shapes_;
  std::deque<std::vector<std::int64_t>> stack_shapes_;
  std::deque<std::string> names_;
  ScaleConvention convention_ = ScaleConvention::multiply;
};

/// This library's stored form: metadata "trit.layout" says so.
std::unique_ptr<Checkpoint> open_trit(SafetensorsFile file);
/// No packed tensors, or torchao's.
std::unique_ptr<Checkpoint> open_plain(SafetensorsFile file);
/// `folder` or one file beside a config.json, or (with the option) without one.
std::unique_ptr<Checkpoint> open_huggingface(const std::filesystem::path& path, const OpenOptions& options);

/// Whether `file` has a packed matrix that could be transformers': a uint8 matrix X with a float X_scale of
/// one value.
bool has_bitnet_pairs(const SafetensorsFile& file);
/// Whether it has torchao's: an int8 matrix X.int_data with X.scale.
bool has_torchao_pairs(const SafetensorsFile& file);

/// Metadata key of a file in the stored form whose matrices have groups: the inputs of one.
inline constexpr std::string_view kGroupKey = "trit.group";
/// Its value, 0 without the key. Throws Error for one that is not a multiple of 32 from 32 to 2^30.
std::int64_t stored_group(const SafetensorsFile& file);

/// Metadata key for the in_features of a packed matrix, which codes [N, ceil(K / 4)] alone do not tell.
std::string in_features_key(std::string_view name);

}  // namespace trit::io
