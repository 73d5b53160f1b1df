// SPDX-License-Identifier: MIT
//
// GGUF keeps a scale in every block, ternary matrices have one, or one per row: the blocks of a row must
// agree. A block whose scale is 0 is a block of zeros, whatever its codes. llama.cpp writes BitNet models
// with d = 1 and the scale in a tensor of its own, "<layer>.scale": it is multiplied into the matrix's.
#include "io/gguf_checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <deque>

#include "io/codecs/blocks.h"
#include "io/codecs/codes.h"
#include "io/codecs/i2_s.h"
#include "io/dtype.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using gguf::TensorEntry;

class GgufCheckpoint final : public Checkpoint {
 public:
  explicit GgufCheckpoint(const std::filesystem::path& path) : file_(path) {
    format_ = Format::gguf;
    path_ = path;
    header_ = gguf::parse_header(file_.bytes(), path.string());
    gguf_pairs_ = std::move(header_.pairs);
    add_metadata();
    description_ = "GGUF version 3, architecture " + quoted_name(header_.architecture);
    add_tensors();
    sort_tensors();
  }

  std::vector<float> scale(const TensorInfo& tensor) const override {
    std::vector<float> scale = blocks_scale(tensor);
    const float factor = factors_[tensor.index] == nullptr ? 1.0F : float_at(*factors_[tensor.index], 0);
    for (float& value : scale) {
      value *= factor;
      if (!std::isfinite(value) || value <= 0) {
        fail(tensor, "the scale is " + std::to_string(value) + ", wanted finite and positive");
      }
    }
    return scale;
  }

  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> packed) const override {
    const std::int64_t inputs = tensor.shape[1];
    const std::int64_t row_bytes = packed_row_bytes(inputs);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(inputs));
    const BlockFormat* format = formats_[tensor.index];
    for (std::int64_t row = first_row; row < first_row + rows; ++row) {
      if (format == nullptr) {
        i2_s::decode(data(tensor), row * inputs, codes);
      } else {
        decode_row(tensor, *format, row, codes);
      }
      const auto out = packed.subspan(static_cast<std::size_t>((row - first_row) * row_bytes),
                                      static_cast<std::size_t>(row_bytes));
      if (const auto invalid = pack_codes(codes, out)) {
        fail(tensor, "row " + std::to_string(row) + ", column " + std::to_string(*invalid) +
                         ": the bits are no code of a ternary weight" +
                         (format == nullptr ? " (of I2_S in the order of bitnet.cpp's x86 build)" : ""));
      }
    }
  }

  void read_elements(const TensorInfo& tensor, std::int64_t first,
                     std::span<std::byte> bytes) const override {
    const TensorEntry& entry = header_.tensors[tensor.index];
    const auto part = file_.bytes().subspan(
        entry.offset + static_cast<std::uint64_t>(first) * dtype_size(tensor.type), bytes.size());
    std::copy(part.begin(), part.end(), bytes.begin());
  }

  void release(const TensorInfo& tensor) const override {
    const TensorEntry& entry = header_.tensors[tensor.index];
    release_pages(file_.bytes().subspan(entry.offset, entry.bytes));
  }

 private:
  /// Text that this library wrote into the file, and the name.
  void add_metadata() {
    for (const GgufPair& pair : gguf_pairs_) {
      const auto text = gguf::string_value(pair);
      const bool ours = pair.key.starts_with("trit.") || pair.key.starts_with("huggingface.");
      if (text && ours && is_utf8(*text)) {
        metadata_.emplace(pair.key, *text);
      }
    }
  }

  void add_tensors() {
    formats_.resize(header_.tensors.size());
    factors_.resize(header_.tensors.size());
    std::vector<std::pair<std::string_view, std::size_t>>
        scales;  // F32 [1] tensors "<layer>.scale", by layer
    for (std::size_t i = 0; i < header_.tensors.size(); ++i) {
      const TensorEntry& entry = header_.tensors[i];
      const std::string_view layer = without_ending(entry.name, ".scale");
      if (!layer.empty() && entry.type == 0 && entry.bytes == sizeof(float)) {
        scales.emplace_back(layer, i);
      }
    }
    std::sort(scales.begin(), scales.end());
    std::vector<bool> used(header_.tensors.size());
    for (std::size_t i = 0; i < header_.tensors.size(); ++i) {
      if (gguf::element_type(header_.tensors[i].type) == nullptr) {
        const std::string_view layer = without_ending(header_.tensors[i].name, ".weight");
        const auto at =
            std::lower_bound(scales.begin(), scales.end(), layer,
                             [](const auto& scale, std::string_view key) { return scale.first < key; });
        if (at != scales.end() && at->first == layer) {
          factors_[i] = &header_.tensors[at->second];
          used[at->second] = true;
        }
      }
    }
    tensors_.reserve(header_.tensors.size());
    for (std::size_t i = 0; i < header_.tensors.size(); ++i) {
      if (!used[i]) {
        add_tensor(i);
      }
    }
  }

  void add_tensor(std::size_t index) {
    const TensorEntry& entry = header_.tensors[index];
    const auto shape = std::span(entry.shape).first(entry.dimensions);
    if (const gguf::ElementType* type = gguf::element_type(entry.type)) {
      const bool floating = type->dtype.find('F') != std::string_view::npos;
      tensors_.push_back({entry.name, floating ? TensorKind::floating : TensorKind::other, type->dtype, shape,
                          entry.bytes, entry.offset, index});
      return;
    }
    const auto formats = block_formats();
    const auto format = std::find_if(formats.begin(), formats.end(),
                                     [&](const BlockFormat* f) { return f->ggml_type == entry.type; });
    formats_[index] = format == formats.end() ? nullptr : *format;
    // llama.cpp drops the outermost dimension where it is 1.
    const std::span<const std::int64_t> matrix =
        entry.dimensions == 2
            ? shape
            : std::span<const std::int64_t>(row_shapes_.emplace_back(std::array{std::int64_t{1}, shape[0]}));
    tensors_.push_back({entry.name, TensorKind::ternary, format == formats.end() ? "I2_S" : (*format)->name,
                        matrix, entry.bytes + (factors_[index] == nullptr ? 0 : sizeof(float)), entry.offset,
                        index});
  }

  std::span<const std::uint8_t> data(const TensorInfo& tensor) const {
    const TensorEntry& entry = header_.tensors[tensor.index];
    return {reinterpret_cast<const std::uint8_t*>(file_.bytes().data() + entry.offset), entry.bytes};
  }

  float float_at(const TensorEntry& entry, std::uint64_t offset) const {
    float value = 0;
    std::memcpy(&value, file_.bytes().data() + entry.offset + offset, sizeof(value));
    return value;
  }

  void decode_row(const TensorInfo& tensor, const BlockFormat& format, std::int64_t row,
                  std::span<std::uint8_t> codes) const {
    const std::int64_t blocks = tensor.shape[1] / format.weights;
    const std::uint8_t* block = data(tensor).data() + row * blocks * format.bytes;
    for (std::int64_t b = 0; b < blocks; ++b, block += format.bytes) {
      std::uint8_t* out = codes.data() + b * format.weights;
      if ((block_scale(format, block) & 0x7fffU) == 0) {
        std::fill_n(out, format.weights, std::uint8_t{1});
      } else {
        format.decode(block, out);
      }
    }
  }

  /// d of a row; 0 if all of its blocks have d = 0.
  std::uint16_t row_scale(const TensorInfo& tensor, const BlockFormat& format, std::int64_t row) const {
    const std::int64_t blocks = tensor.shape[1] / format.weights;
    const std::uint8_t* block = data(tensor).data() + row * blocks * format.bytes;
    std::uint16_t scale = 0;
    for (std::int64_t b = 0; b < blocks; ++b, block += format.bytes) {
      const std::uint16_t d = block_scale(format, block);
      if ((d & 0x7fffU) == 0 || d == scale) {
        continue;
      }
      const float value = float16_to_float(d);
      if (!std::isfinite(value) || value < 0) {
        fail(tensor, "row " + std::to_string(row) + ", block " + std::to_string(b) + ": scale " +
                         std::to_string(value) + ", wanted finite and not negative");
      }
      if (scale != 0) {
        fail(tensor,
             "row " + std::to_string(row) + ", block " + std::to_string(b) + ": scale " +
                 std::to_string(value) + ", the blocks before have " +
                 std::to_string(float16_to_float(scale)) +
                 "; wanted one scale for all blocks of a row (a ternary matrix, not a quantised float one)");
      }
      scale = d;
    }
    return scale;
  }

  /// [1] if all rows agree, else [N]. A row without a nonzero weight takes any scale: that of the first other
  /// row, or 1.
  std::vector<float> blocks_scale(const TensorInfo& tensor) const {
    const BlockFormat* format = formats_[tensor.index];
    if (format == nullptr) {
      return {
          float_at(header_.tensors[tensor.index], header_.tensors[tensor.index].bytes - i2_s::kTailBytes)};
    }
    std::vector<std::uint16_t> rows(static_cast<std::size_t>(tensor.shape[0]));
    for (std::size_t row = 0; row < rows.size(); ++row) {
      rows[row] = row_scale(tensor, *format, static_cast<std::int64_t>(row));
    }
    const auto first = std::find_if(rows.begin(), rows.end(), [](std::uint16_t d) { return d != 0; });
    if (first == rows.end()) {
      return {1.0F};
    }
    std::replace(rows.begin(), rows.end(), std::uint16_t{0}, std::uint16_t{*first});
    if (std::all_of(rows.begin(), rows.end(), [&](std::uint16_t d) { return d == rows[0]; })) {
      return {float16_to_float(rows[0])};
    }
    std::vector<float> scale(rows.size());
    std::transform(rows.begin(), rows.end(), scale.begin(), float16_to_float);
    return scale;
  }

  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& what) const {
    throw Error(path_.string() + ": tensor " + quoted_name(tensor.name) + ": " + what);
  }

  MappedFile file_;
  gguf::Header header_;
  std::vector<const BlockFormat*> formats_;  // of each tensor of the header; null for I2_S and plain elements
  std::vector<const TensorEntry*> factors_;  // "<layer>.scale" of each, or null
  std::deque<std::array<std::int64_t, 2>> row_shapes_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf(const std::filesystem::path& path) {
  return std::make_unique<GgufCheckpoint>(path);
}

}  // namespace trit::io
