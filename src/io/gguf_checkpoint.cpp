// SPDX-License-Identifier: MIT
//
// GGUF keeps a scale in every block, ternary matrices have one, or one per row: the blocks of a row must
// agree. A block whose scale is 0 is a block of zeros, whatever its codes. llama.cpp writes BitNet models
// with d = 1 and the scale in a tensor of its own, "<layer>.scale": it is multiplied into the matrix's.
// A stack of matrices (the experts of a layer) reads as one matrix of all their rows.
#include "io/gguf_checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>

#include "io/codecs/blocks.h"
#include "io/codecs/codes.h"
#include "io/codecs/i2_s.h"
#include "io/dtype.h"
#include "io/gguf_parts.h"
#include "io/tensor_names.h"
#include "io/write_plan.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using gguf::TensorEntry;

class GgufCheckpoint final : public Checkpoint {
 public:
  explicit GgufCheckpoint(const std::filesystem::path& path) : parts_(gguf::open_parts(path)) {
    format_ = Format::gguf;
    path_ = path;
    gguf::Header& first = parts_.front().header;
    gguf_pairs_ = std::move(first.pairs);
    add_metadata();
    description_ = "GGUF version 3" +
                   (parts_.size() == 1 ? "" : " in " + std::to_string(parts_.size()) + " files") +
                   ", architecture " + quoted_name(first.architecture);
    add_tensors();
    check_names();
    sort_tensors();
  }

  std::vector<float> scale(const TensorInfo& tensor) const override {
    std::vector<float> scale = blocks_scale(tensor);
    const Source* scale_tensor = sources_[tensor.index].factor;
    const float factor = scale_tensor == nullptr ? 1.0F : float_at(*scale_tensor, 0);
    for (float& value : scale) {
      value *= factor;
      if (!std::isfinite(value) || value <= 0) {
        fail(tensor, "the scale is " + std::to_string(value) + ", wanted finite and positive");
      }
    }
    return scale;
  }

  bool has_weight_scale(const TensorInfo& tensor) const override {
    const BlockFormat* format = sources_[tensor.index].format;
    if (format == nullptr) {
      return true;
    }
    for (std::int64_t row = 0; row < tensor.shape[0]; ++row) {
      std::uint16_t scale = 0;
      bool one = true;
      for_each_block(tensor, *format, row, [&](std::int64_t, const std::uint8_t*, std::uint16_t d) {
        one = one && (d == 0 || scale == 0 || d == scale);
        scale = d == 0 ? scale : d;
      });
      if (!one) {
        return false;
      }
    }
    return true;
  }

  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> packed) const override {
    const std::int64_t inputs = tensor.shape[1];
    const std::int64_t row_bytes = packed_row_bytes(inputs);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(inputs));
    const BlockFormat* format = sources_[tensor.index].format;
    for (std::int64_t row = first_row; row < first_row + rows; ++row) {
      if (format == nullptr) {
        i2_s::decode({bytes_of(tensor), data(sources_[tensor.index]).size()}, row * inputs, codes);
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
    const auto part =
        data(sources_[tensor.index])
            .subspan(static_cast<std::uint64_t>(elements_of(tensor).bytes(first)), bytes.size());
    std::copy(part.begin(), part.end(), bytes.begin());
  }

  void release(const TensorInfo& tensor) const override { release_pages(data(sources_[tensor.index])); }

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

  /// Where the data of a tensor are, and how they are read.
  struct Source {
    const gguf::Part* part = nullptr;
    const TensorEntry* entry = nullptr;
    const BlockFormat* format = nullptr;  // of a ternary tensor; null for I2_S
    const Source* factor = nullptr;       // "<layer>.scale" of a ternary tensor, or null
  };

  void add_tensors() {
    for (const gguf::Part& part : parts_) {
      for (const TensorEntry& entry : part.header.tensors) {
        sources_.push_back({&part, &entry, format_of(entry.type), nullptr});
      }
    }
    std::map<std::string_view, std::size_t> scales;  // one F32, "<layer>.scale", by layer
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      const TensorEntry& entry = *sources_[i].entry;
      const std::string_view layer = without_ending(entry.name, ".scale");
      if (!layer.empty() && entry.type == 0 && entry.bytes == sizeof(float)) {
        scales.emplace(layer, i);
      }
    }
    std::vector<bool> used(sources_.size());
    for (Source& source : sources_) {
      if (is_ternary(source)) {
        const auto at = scales.find(without_ending(source.entry->name, ".weight"));
        if (at != scales.end()) {
          source.factor = &sources_[at->second];
          used[at->second] = true;
        }
      }
    }
    tensors_.reserve(sources_.size());
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (!used[i]) {
        add_tensor(i);
      }
    }
  }

  static const BlockFormat* format_of(std::uint32_t type) {
    const auto formats = block_formats();
    const auto format = std::ranges::find(formats, type, &BlockFormat::ggml_type);
    return format == formats.end() ? nullptr : *format;
  }

  /// A matrix, or a stack of them, of ternary weights. An empty one is copied like any block type.
  static bool is_ternary(const Source& source) {
    return (source.format != nullptr || source.entry->type == i2_s::kGgmlType) && source.entry->bytes != 0;
  }

  void add_tensor(std::size_t index) {
    const Source& source = sources_[index];
    const TensorEntry& entry = *source.entry;
    const auto shape = std::span(entry.shape).first(entry.dimensions);
    const gguf::GgmlType* type = gguf::find_type(entry.type);
    TensorInfo tensor{entry.name,  TensorKind::blocks, type->name, shape,
                      entry.bytes, entry.offset,       index,      {}};
    if (is_ternary(source)) {
      tensor.kind = TensorKind::ternary;
      tensor.type = source.format == nullptr ? "I2_S" : source.format->name;
      tensor.stored_bytes += source.factor == nullptr ? 0 : sizeof(float);
      if (entry.dimensions != 2) {
        // llama.cpp drops the outermost dimension where it is 1.
        const std::int64_t rows = checked_numel(shape.first(shape.size() - 1)).value_or(0);
        tensor.shape = row_shapes_.emplace_back(std::array{rows, shape.back()});
        tensor.stack = entry.dimensions < 2 ? std::span<const std::int64_t>() : shape;
      }
    } else if (type->has_elements()) {
      tensor.kind = type->name.find('F') != std::string_view::npos ? TensorKind::floating : TensorKind::other;
    }
    tensors_.push_back(tensor);
  }

  /// Two tensors of one name in different parts: the message of sort_tensors() would name the first file
  /// alone.
  void check_names() const {
    if (parts_.size() == 1) {
      return;
    }
    std::map<std::string_view, const Source*> seen;
    for (const Source& source : sources_) {
      const auto [at, added] = seen.emplace(source.entry->name, &source);
      if (!added) {
        throw Error("the tensor " + quoted_name(at->first) + " occurs twice, in " +
                    at->second->part->path.string() + " and in " + source.part->path.string() +
                    ", wanted distinct names in the parts of a split model");
      }
    }
  }

  static std::span<const std::byte> data(const Source& source) {
    return source.part->file.bytes().subspan(source.entry->offset, source.entry->bytes);
  }
  const std::uint8_t* bytes_of(const TensorInfo& tensor) const {
    return reinterpret_cast<const std::uint8_t*>(data(sources_[tensor.index]).data());
  }

  static float float_at(const Source& source, std::uint64_t offset) {
    float value = 0;
    std::memcpy(&value, data(source).data() + offset, sizeof(value));
    return value;
  }

  /// found(index, block, d) for the blocks of a row; d is 0 for either zero of float16.
  template <typename Found>
  void for_each_block(const TensorInfo& tensor, const BlockFormat& format, std::int64_t row,
                      const Found& found) const {
    const std::int64_t blocks = tensor.shape[1] / format.weights;
    const std::uint8_t* block = bytes_of(tensor) + row * blocks * format.bytes;
    for (std::int64_t b = 0; b < blocks; ++b, block += format.bytes) {
      const std::uint16_t d = block_scale(format, block);
      found(b, block, (d & 0x7fffU) == 0 ? std::uint16_t{0} : d);
    }
  }

  void decode_row(const TensorInfo& tensor, const BlockFormat& format, std::int64_t row,
                  std::span<std::uint8_t> codes) const {
    for_each_block(tensor, format, row, [&](std::int64_t b, const std::uint8_t* block, std::uint16_t d) {
      std::uint8_t* const out = codes.data() + b * format.weights;
      if (d == 0) {
        std::fill_n(out, format.weights, std::uint8_t{1});
      } else {
        format.decode(block, out);
      }
    });
  }

  /// d of a row; 0 if all of its blocks have d = 0.
  std::uint16_t row_scale(const TensorInfo& tensor, const BlockFormat& format, std::int64_t row) const {
    std::uint16_t scale = 0;
    for_each_block(tensor, format, row, [&](std::int64_t b, const std::uint8_t*, std::uint16_t d) {
      if (d == 0 || d == scale) {
        return;
      }
      const float value = float16_to_float(d);
      const std::string what =
          "row " + std::to_string(row) + ", block " + std::to_string(b) + ": scale " + std::to_string(value);
      if (!std::isfinite(value) || value < 0) {
        fail(tensor, what + ", wanted finite and not negative");
      }
      if (scale != 0) {
        fail(tensor,
             what + ", the blocks before have " + std::to_string(float16_to_float(scale)) +
                 "; wanted one scale for all blocks of a row (a ternary matrix, not a quantised float one)");
      }
      scale = d;
    });
    return scale;
  }

  /// [1] if all rows agree, else [N]. A row without a nonzero weight takes any scale: that of the first other
  /// row, or 1.
  std::vector<float> blocks_scale(const TensorInfo& tensor) const {
    const Source& source = sources_[tensor.index];
    const BlockFormat* format = source.format;
    if (format == nullptr) {
      return {float_at(source, source.entry->bytes - i2_s::kTailBytes)};
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
    throw Error(sources_[tensor.index].part->path.string() + ": tensor " + quoted_name(tensor.name) + ": " +
                what);
  }

  std::deque<gguf::Part> parts_;
  std::vector<Source> sources_;  // by TensorInfo::index
  std::deque<std::array<std::int64_t, 2>> row_shapes_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf(const std::filesystem::path& path) {
  return std::make_unique<GgufCheckpoint>(path);
}

}  // namespace trit::io
