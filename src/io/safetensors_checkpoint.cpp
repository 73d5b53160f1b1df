// SPDX-License-Identifier: MIT
#include "io/safetensors_checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "io/codecs/codes.h"
#include "io/codecs/huggingface.h"
#include "io/codecs/torchao.h"
#include "io/dtype.h"
#include "io/float_elements.h"
#include "io/mapped_file.h"
#include "io/rotation.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Layout = SafetensorsCheckpoint::Layout;

std::string_view type_of(Layout layout) {
  switch (layout) {
    case Layout::rows_2bit:
      return "rows-2bit";
    case Layout::bitnet_packed:
      return "bitnet-packed";
    case Layout::bitnet_values:
      return "bitnet-values";
    case Layout::torchao_packed:
      return "torchao-packed";
    case Layout::elements:
    case Layout::scaled_elements:
      break;
  }
  return "F32";
}

std::span<const std::uint8_t> as_codes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

/// Codes t + 1 of floats -1, 0, +1; kInvalidCode for others.
void values_to_codes(std::span<const float> values, std::span<std::uint8_t> codes) {
  std::transform(values.begin(), values.end(), codes.begin(), [](float value) {
    return value == 0    ? std::uint8_t{1}
           : value == 1  ? std::uint8_t{2}
           : value == -1 ? std::uint8_t{0}
                         : kInvalidCode;
  });
}

}  // namespace

const SafetensorsFile& SafetensorsCheckpoint::add_file(SafetensorsFile file) {
  for (const auto& [name, view] : file.tensors()) {
    check_tensor_name(name, file.path().string());
  }
  file_bytes_ += file.size();
  return files_.emplace_back(std::move(file));
}

void SafetensorsCheckpoint::add_elements(std::string_view name, const TensorView& view, std::size_t file) {
  tensors_.push_back({name, is_float_dtype(view.dtype) ? TensorKind::floating : TensorKind::other, view.dtype,
                      view.shape, view.data.size(), view.offset, sources_.size()});
  sources_.push_back({Layout::elements, &view, nullptr, file});
}

void SafetensorsCheckpoint::add_scaled_elements(std::string_view name, const TensorView& view,
                                                const TensorView& scale, std::size_t file) {
  tensors_.push_back({name, TensorKind::floating, type_of(Layout::scaled_elements), view.shape,
                      view.data.size(), view.offset, sources_.size()});
  sources_.push_back({Layout::scaled_elements, &view, &scale, file});
}

void SafetensorsCheckpoint::add_ternary(std::string_view name, Layout layout, const TensorView& data,
                                        const TensorView& scale, std::int64_t out_features,
                                        std::int64_t in_features, std::size_t file, std::int64_t group) {
  const auto& shape = matrix_shapes_.emplace_back(std::array{out_features, in_features});
  tensors_.push_back({name, TensorKind::ternary, type_of(layout), shape, data.data.size() + scale.data.size(),
                      data.offset, sources_.size()});
  if (data.shape.size() > 2) {
    auto& stack = stack_shapes_.emplace_back(data.shape);
    stack.back() = in_features;
    tensors_.back().stack = stack;
  }
  sources_.push_back({layout, &data, &scale, file, group});
}

void SafetensorsCheckpoint::finish(std::string description, Metadata metadata) {
  description_ = std::move(description);
  metadata_ = std::move(metadata);
  sort_tensors();
  for (const TensorInfo& tensor : tensors_) {
    if (tensor.kind == TensorKind::ternary && (tensor.shape[0] < 1 || tensor.shape[1] < 1)) {
      fail(tensor, "shape " + shape_text(tensor.shape) + ", wanted at least [1, 1]");
    }
  }
  description_ += check_rotation(metadata_, tensors_, path_.string());
}

void SafetensorsCheckpoint::fail(const TensorInfo& tensor, const std::string& what) const {
  throw Error(files_[sources_[tensor.index].file].path().string() + ": tensor " + quoted_name(tensor.name) +
              ": " + what);
}

void SafetensorsCheckpoint::read_scale(const TensorInfo& tensor, std::int64_t first,
                                       std::span<float> scale) const {
  const Source& source = sources_[tensor.index];
  const std::size_t size = dtype_size(source.scale->dtype);
  elements_to_floats(source.scale->dtype,
                     source.scale->data.subspan(static_cast<std::size_t>(first) * size, scale.size() * size),
                     scale);
  for (std::size_t i = 0; i < scale.size(); ++i) {
    if (convention_ == ScaleConvention::divide) {
      scale[i] = 1.0F / scale[i];
    }
    if (!std::isfinite(scale[i]) || scale[i] <= 0) {
      const std::int64_t at = first + static_cast<std::int64_t>(i);
      // A bias has a scale as well (docs/formats.md), but one dimension and no groups.
      const std::int64_t groups = source.group == 0 ? 1 : groups_of(tensor.shape[1], source.group);
      fail(tensor, (source.group == 0 ? "scale " + std::to_string(at)
                                      : "the scale of row " + std::to_string(at / groups) + ", group " +
                                            std::to_string(at % groups)) +
                       " is " + std::to_string(scale[i]) +
                       (convention_ == ScaleConvention::divide ? " (1 / the stored value)" : "") +
                       ", wanted finite and positive");
    }
  }
}

std::vector<float> SafetensorsCheckpoint::scale(const TensorInfo& tensor) const {
  std::vector<float> scale(static_cast<std::size_t>(sources_[tensor.index].scale->numel()));
  read_scale(tensor, 0, scale);
  return scale;
}

void SafetensorsCheckpoint::read_group_scales(const TensorInfo& tensor, std::int64_t first_row,
                                              std::int64_t rows, std::span<float> scales) const {
  const std::int64_t groups = groups_of(tensor.shape[1], sources_[tensor.index].group);
  read_scale(tensor, first_row * groups, scales.first(static_cast<std::size_t>(rows * groups)));
}

void SafetensorsCheckpoint::read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                                       std::span<std::uint8_t> codes) const {
  const Source& source = sources_[tensor.index];
  const std::span<const std::uint8_t> data = as_codes(source.data->data);
  const auto in_features = static_cast<std::size_t>(tensor.shape[1]);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
  const std::size_t shared_rows = data.size() / in_features;  // of bitnet_packed: R
  std::vector<float> values;
  std::vector<std::uint8_t> unpacked;
  if (source.layout == Layout::bitnet_values) {
    values.resize(in_features);
    unpacked.resize(in_features);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto row = static_cast<std::size_t>(first_row + i);
    const auto out = codes.subspan(static_cast<std::size_t>(i) * row_bytes, row_bytes);
    std::optional<std::size_t> invalid;
    switch (source.layout) {
      case Layout::bitnet_packed:
        invalid = huggingface::decode_row(data.subspan(row % shared_rows * in_features, in_features),
                                          static_cast<int>(row / shared_rows), out);
        break;
      case Layout::bitnet_values: {
        const std::size_t size = dtype_size(source.data->dtype);
        elements_to_floats(source.data->dtype,
                           source.data->data.subspan(row * in_features * size, in_features * size), values);
        values_to_codes(values, unpacked);
        invalid = pack_codes(unpacked, out);
        break;
      }
      case Layout::torchao_packed:
        torchao::reverse_fields(data.subspan(row * row_bytes, row_bytes), out);
        invalid = find_invalid(out, in_features);
        break;
      default:
        std::memcpy(out.data(), data.data() + row * row_bytes, row_bytes);
        invalid = find_invalid(out, in_features);
    }
    if (invalid) {
      fail(tensor,
           "row " + std::to_string(row) + ", column " + std::to_string(*invalid) +
               (*invalid >= in_features ? ": the padding past the last column is not 0"
                : source.layout == Layout::bitnet_values
                    ? ": " + std::to_string(values[*invalid]) + " is not a ternary weight, wanted -1, 0 or 1"
                    : ": the bits are not a ternary code"));
    }
  }
}

void SafetensorsCheckpoint::read_elements(const TensorInfo& tensor, std::int64_t first,
                                          std::span<std::byte> bytes) const {
  const Source& source = sources_[tensor.index];
  if (source.layout == Layout::elements) {
    const auto part = source.data->data.subspan(
        static_cast<std::size_t>(bytes_of_elements(source.data->dtype, first)), bytes.size());
    std::copy(part.begin(), part.end(), bytes.begin());
    return;
  }
  const std::size_t size = dtype_size(source.data->dtype);
  std::vector<float> values(bytes.size() / sizeof(float));
  elements_to_floats(source.data->dtype,
                     source.data->data.subspan(static_cast<std::size_t>(first) * size, values.size() * size),
                     values);
  float scale = 0;
  read_scale(tensor, 0, std::span(&scale, 1));
  for (float& value : values) {
    value *= scale;
  }
  std::memcpy(bytes.data(), values.data(), bytes.size());
}

void SafetensorsCheckpoint::release(const TensorInfo& tensor) const {
  release_pages(sources_[tensor.index].data->data);
}

std::string in_features_key(std::string_view name) { return "trit.in_features." + std::string(name); }

}  // namespace trit::io
