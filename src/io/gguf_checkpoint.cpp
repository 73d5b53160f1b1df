// SPDX-License-Identifier: MIT
//
// llama.cpp writes BitNet models with d = 1 in every block (gguf_blocks.h) and the scale in a tensor of its
// own, "<layer>.scale": it is multiplied into the matrix's. A stack of matrices (the experts of a layer) reads
// as one matrix of all their rows.
#include "io/gguf_checkpoint.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <optional>

#include "io/codecs/blocks.h"
#include "io/codecs/codes.h"
#include "io/codecs/i2_s.h"
#include "io/dtype.h"
#include "io/gguf_blocks.h"
#include "io/gguf_parts.h"
#include "io/rotation.h"
#include "io/scale_rows.h"
#include "io/tensor_names.h"
#include "io/write_plan.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using gguf::BlockMatrix;
using gguf::TensorEntry;

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(const std::filesystem::path& path, std::string_view block_format)
      : parts_(gguf::open_parts(path, block_format)) {
    format_ = Format::gguf;
    path_ = path;
    for (const gguf::Part& part : parts_) {
      file_bytes_ += part.file.bytes().size();
    }
    gguf::Header& first = parts_.front().header;
    gguf_pairs_ = std::move(first.pairs);
    add_metadata();
    description_ = "GGUF version 3" +
                   (parts_.size() == 1 ? "" : " in " + std::to_string(parts_.size()) + " files") +
                   ", architecture " + quoted_name(first.architecture);
    add_tensors();
    check_names();
    sort_tensors();
    add_rotation(first.architecture);
  }

  std::int64_t group(const TensorInfo& tensor) const override {
    if (sources_[tensor.index].format == nullptr) {
      return 0;
    }
    std::atomic<std::int64_t>& known = groups_[tensor.index];
    if (known < 0) {
      known = blocks_of(tensor).group();
    }
    return known;
  }

  std::vector<float> scale(const TensorInfo& tensor) const override {
    const Source& source = sources_[tensor.index];
    if (source.format == nullptr) {
      std::vector<float> one{float_at(source, source.entry->bytes - i2_s::kTailBytes)};
      apply_factor(tensor, one);
      return one;
    }
    if (group(tensor) == 0) {
      std::vector<float> scale = blocks_of(tensor).row_scales();
      apply_factor(tensor, scale);
      return scale;
    }
    return all_group_scales(*this, tensor);
  }

  void read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                         std::span<float> scales) const override {
    blocks_of(tensor).group_scales(first_row, rows, scales);
    apply_factor(tensor, scales);
  }

  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> packed) const override {
    const std::int64_t inputs = tensor.shape[1];
    const std::int64_t row_bytes = packed_row_bytes(inputs);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(inputs));
    const Source& source = sources_[tensor.index];
    const bool is_i2_s = source.format == nullptr;
    const std::span<const std::byte> bytes = data(source);
    const std::optional<BlockMatrix> blocks = is_i2_s ? std::nullopt : std::optional(blocks_of(tensor));
    for (std::int64_t row = first_row; row < first_row + rows; ++row) {
      const auto out = packed.subspan(static_cast<std::size_t>((row - first_row) * row_bytes),
                                      static_cast<std::size_t>(row_bytes));
      std::optional<std::size_t> invalid;
      if (is_i2_s) {
        i2_s::decode({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, row * inputs,
                     codes);
        invalid = pack_codes(codes, out);
      } else {
        invalid = blocks->read_row(row, codes, out);
      }
      if (invalid) {
        fail(tensor, "row " + std::to_string(row) + ", column " + std::to_string(*invalid) +
                         ": the bits are not a ternary code" +
                         (is_i2_s ? " (of I2_S in the order of bitnet.cpp's x86 build)" : ""));
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

  void add_rotation(const std::string& architecture) {
    if (const auto rotation = rotation_of(gguf_pairs_, path_.string())) {
      if (rotation->grouped_v_heads && !architecture.starts_with("qwen35")) {
        throw Error(path_.string() + ": \"prism.hadamard.gdn_v_grouped\" is true with general.architecture " +
                    quoted_name(architecture) + ", wanted qwen35");
      }
      metadata_[std::string(kRotationKey)] = rotation_text(*rotation);
    }
    description_ += check_rotation(metadata_, tensors_, path_.string());
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
    groups_ = std::make_unique<std::atomic<std::int64_t>[]>(sources_.size());
    std::fill_n(groups_.get(), sources_.size(), -1);
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
  static float float_at(const Source& source, std::uint64_t offset) {
    float value = 0;
    std::memcpy(&value, data(source).data() + offset, sizeof(value));
    return value;
  }

  /// Of a ternary tensor of another type than I2_S.
  BlockMatrix blocks_of(const TensorInfo& tensor) const {
    const Source& source = sources_[tensor.index];
    return {*source.format, data(source), tensor.shape[1], what(tensor)};
  }

  /// Multiplies by "<layer>.scale". Error for a scale that is then not finite and positive.
  void apply_factor(const TensorInfo& tensor, std::span<float> scales) const {
    const Source* scale_tensor = sources_[tensor.index].factor;
    const float factor = scale_tensor == nullptr ? 1.0F : float_at(*scale_tensor, 0);
    for (float& value : scales) {
      value *= factor;
      if (!std::isfinite(value) || value <= 0) {
        fail(tensor, "the scale is " + std::to_string(value) + ", wanted finite and positive");
      }
    }
  }

  std::string what(const TensorInfo& tensor) const {
    return sources_[tensor.index].part->path.string() + ": tensor " + quoted_name(tensor.name) + ": ";
  }
  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& problem) const {
    throw Error(what(tensor) + problem);
  }

  std::deque<gguf::Part> parts_;
  std::vector<Source> sources_;  // by TensorInfo::index
  std::deque<std::array<std::int64_t, 2>> row_shapes_;
  std::unique_ptr<std::atomic<std::int64_t>[]> groups_;  // by TensorInfo::index; -1 where it is not known yet
};

}  // namespace

std::unique_ptr<Checkpoint> open_gguf(const std::filesystem::path& path, std::string_view block_format) {
  return std::make_unique<GgufCheckpoint>(path, block_format);
}

}  // namespace trit::io
