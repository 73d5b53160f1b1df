// SPDX-License-Identifier: MIT
//
// GGUF version 3 (gguf.h) with the matrices in one of ggml's ternary block formats: the codes as they are,
// and in every block d = the scale of its weights rounded to float16 (gguf_scales.h). All else is copied byte
// for byte, blocks of types that are not decoded too.
#include <algorithm>
#include <cstring>
#include <memory>

#include "base/atomic_file.h"
#include "base/names.h"
#include "io/codecs/codes.h"
#include "io/dtype.h"
#include "io/gguf_parts.h"
#include "io/gguf_scales.h"
#include "io/rotation.h"
#include "io/tensor_names.h"
#include "io/write_plan.h"
#include "trit/error.h"

namespace trit::io {
namespace {

// ggml keeps names in 64 bytes with a NUL.
constexpr std::size_t kLongestName = gguf::kMaxNameBytes - 1;

struct Placed {
  const PlannedTensor* planned;
  std::span<const std::int64_t> shape;
  std::uint32_t type;
  std::uint64_t bytes;
  std::unique_ptr<BlockScales> scales = nullptr;  // of a ternary matrix; else it is copied
};

/// The format that the options name, or one that suits the groups of the matrices.
const BlockFormat& block_format(const WritePlan& plan) {
  const std::string& option = plan.options.block_format;
  if (option.empty()) {
    const std::int64_t group = common_group(plan);
    return group % kTq2_0.weights == 0 ? kTq2_0 : group % kPq2_0.weights == 0 ? kPq2_0 : kQ2_0;
  }
  const auto found = std::ranges::find(block_formats(), option, &BlockFormat::option);
  if (found == block_formats().end()) {
    throw Error("gguf: unknown ternary type \"" + option + "\", wanted one of " +
                joined(block_formats(), &BlockFormat::option));
  }
  return **found;
}

Placed place(const WritePlan& plan, const PlannedTensor& planned, const BlockFormat& format) {
  const TensorInfo& tensor = *planned.tensor;
  const std::string what = "tensor " + quoted_name(planned.name) + ": ";
  if (planned.name.size() > kLongestName) {
    throw Error(what + "a name of " + std::to_string(planned.name.size()) + " bytes, GGUF takes at most " +
                std::to_string(kLongestName) + "; rename it with --map");
  }
  const std::int64_t count = checked_numel(tensor.shape).value_or(0);
  if (tensor.kind == TensorKind::ternary) {
    if (tensor.shape[1] % format.weights != 0) {
      const ScaleRows scales(plan.source, tensor);
      throw Error(what + "rows of " + std::to_string(tensor.shape[1]) + " weights, " +
                  std::string(format.name) + " takes multiples of " + std::to_string(format.weights) +
                  ". Formats that can hold it: " + formats_that_hold(tensor, scales.fixed(), scales.group()));
    }
    return {&planned, tensor.shape_in_file(), format.ggml_type,
            static_cast<std::uint64_t>(count / format.weights * format.bytes),
            std::make_unique<BlockScales>(plan, planned, format)};
  }
  const gguf::GgmlType* type = gguf::find_type(tensor.type);
  const bool known = type != nullptr && (type->has_elements() || tensor.kind == TensorKind::blocks);
  if (!known || tensor.shape.size() > gguf::kMaxDimensions) {
    throw Error(what + std::string(tensor.type) + " " + shape_text(tensor.shape) +
                ", GGUF holds F32, F16, BF16, F64, I8, I16, I32 and I64 of up to 4 dimensions."
                " Formats that can hold it: trit, hf");
  }
  const Elements elements = elements_of(tensor);
  return {&planned, tensor.shape, type->id, static_cast<std::uint64_t>(elements.bytes(elements.count))};
}

bool has_ternary(const WritePlan& plan) {
  return std::ranges::any_of(
      plan.tensors, [](const PlannedTensor& planned) { return planned.tensor->kind == TensorKind::ternary; });
}

/// general.file_type, llama.cpp's LLAMA_FTYPE_MOSTLY_...: of the ternary matrices, else of the largest float
/// tensor.
std::optional<std::uint32_t> file_type(const WritePlan& plan, const BlockFormat& format) {
  const TensorInfo* largest = nullptr;
  for (const PlannedTensor& planned : plan.tensors) {
    const TensorInfo& tensor = *planned.tensor;
    if (tensor.kind == TensorKind::ternary) {
      return &format == &kTq1_0   ? std::optional<std::uint32_t>(36)
             : &format == &kTq2_0 ? std::optional<std::uint32_t>(37)
                                  : std::nullopt;
    }
    if (tensor.kind == TensorKind::floating &&
        (largest == nullptr || tensor.stored_bytes > largest->stored_bytes)) {
      largest = &tensor;
    }
  }
  const std::string_view type = largest == nullptr ? "" : largest->type;
  return type == "F32"    ? std::optional<std::uint32_t>(0)
         : type == "F16"  ? std::optional<std::uint32_t>(1)
         : type == "BF16" ? std::optional<std::uint32_t>(32)
                          : std::nullopt;
}

/// Keys and values: those of a GGUF source as they are, else the few that readers expect.
void write_pairs(const WritePlan& plan, const BlockFormat& format, gguf::ByteWriter& header,
                 std::uint64_t& count) {
  const auto key = [&](std::string_view name, std::uint32_t type) {
    header.string(name);
    header.number(type);
    ++count;
  };
  const auto replaced = [&](std::string_view name) {
    return gguf::is_split_key(name) || name == "general.alignment" || name == "general.file_type" ||
           name == "general.quantization_version" || name == gguf::kBlockFormatKey ||
           (name == "general.architecture" && !plan.options.architecture.empty()) ||
           plan.metadata.contains(name);
  };
  // As they lie in the source, unless matrices were renamed or left out.
  const auto rotation = plan.metadata.find(kRotationKey);
  const auto source_rotation = plan.source.metadata().find(kRotationKey);
  const bool same_rotation = rotation != plan.metadata.end() && source_rotation->second == rotation->second &&
                             std::ranges::any_of(plan.source.gguf_pairs(), [](const GgufPair& pair) {
                               return pair.key.starts_with(kRotationPrefix);
                             });
  bool architecture = false;
  for (const GgufPair& pair : plan.source.gguf_pairs()) {
    if (!replaced(pair.key) && (same_rotation || !pair.key.starts_with(kRotationPrefix))) {
      header.string(pair.key);
      header.append(pair.value);
      ++count;
      architecture = architecture || pair.key == "general.architecture";
    }
  }
  if (!architecture) {
    key("general.architecture", gguf::kString);
    header.string(plan.options.architecture.empty() ? "trit" : plan.options.architecture);
  }
  key("general.alignment", gguf::kUint32);
  header.number(static_cast<std::uint32_t>(gguf::kDefaultAlignment));
  key("general.quantization_version", gguf::kUint32);
  header.number(std::uint32_t{2});
  if (const auto type = file_type(plan, format)) {
    key("general.file_type", gguf::kUint32);
    header.number(*type);
  }
  if (has_ternary(plan)) {
    key(gguf::kBlockFormatKey, gguf::kString);
    header.string(format.option);
  }
  if (const auto found = rotation_of(plan.metadata, plan.source.path().string()); found && !same_rotation) {
    count += write_rotation(*found, header);
  }
  for (const auto& [name, value] : plan.metadata) {
    if (name != kRotationKey) {
      key(name, gguf::kString);
      header.string(value);
    }
  }
}

gguf::ByteWriter make_header(const WritePlan& plan, const BlockFormat& format,
                             std::span<const Placed> tensors) {
  gguf::ByteWriter pairs;
  std::uint64_t pair_count = 0;
  write_pairs(plan, format, pairs, pair_count);
  gguf::ByteWriter header;
  header.append(std::as_bytes(std::span(gguf::kMagic)));
  header.number(gguf::kVersion);
  header.number(static_cast<std::uint64_t>(tensors.size()));
  header.number(pair_count);
  header.append(pairs.bytes());
  std::uint64_t offset = 0;
  for (const Placed& placed : tensors) {
    header.string(placed.planned->name);
    header.number(static_cast<std::uint32_t>(placed.shape.size()));
    for (std::size_t i = placed.shape.size(); i > 0; --i) {
      header.number(static_cast<std::uint64_t>(placed.shape[i - 1]));
    }
    header.number(placed.type);
    header.number(offset);
    offset += round_up(placed.bytes, gguf::kDefaultAlignment);
  }
  header.pad(gguf::kDefaultAlignment);
  return header;
}

/// The codes of a block whose order is that of the stored form.
void copy_fields(const BlockFormat& format, const std::uint8_t* packed, std::uint8_t* block) {
  for (std::int64_t at = 0; at < format.weights / 4; at += 8) {
    std::uint64_t fields = 0;
    std::memcpy(&fields, packed + at, sizeof(fields));
    fields = plus_one_fields(fields);
    std::memcpy(block + format.fields_offset + at, &fields, sizeof(fields));
  }
}

void write_blocks(const WritePlan& plan, const Placed& placed, const BlockFormat& format, AtomicFile& file,
                  Progress& progress) {
  const TensorInfo& tensor = *placed.planned->tensor;
  const auto inputs = static_cast<std::size_t>(tensor.shape[1]);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
  const auto row_blocks = inputs / static_cast<std::size_t>(format.weights);
  std::vector<std::uint8_t> codes(inputs);
  std::vector<std::uint8_t> blocks;
  std::vector<std::uint16_t> scales;
  for_each_rows(
      plan, tensor, progress,
      [&](std::span<const std::uint8_t> packed, std::int64_t first, std::int64_t rows) {
        blocks.resize(static_cast<std::size_t>(rows) * row_blocks * static_cast<std::size_t>(format.bytes));
        scales.resize(static_cast<std::size_t>(rows) * row_blocks);
        placed.scales->read(first, rows, packed, scales);
        std::uint8_t* block = blocks.data();
        const std::uint16_t* d = scales.data();
        for (std::int64_t row = 0; row < rows; ++row) {
          const auto of_row = packed.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes);
          if (format.fields_offset < 0) {
            unpack_codes(of_row, codes);
          }
          for (std::size_t b = 0; b < row_blocks; ++b, block += format.bytes, ++d) {
            if (format.fields_offset < 0) {
              format.encode(codes.data() + b * static_cast<std::size_t>(format.weights), block);
            } else {
              copy_fields(format, of_row.data() + b * static_cast<std::size_t>(format.weights) / 4, block);
            }
            set_block_scale(format, block, *d);
          }
        }
        file.write(std::as_bytes(std::span(blocks)));
      });
}

}  // namespace

void write_gguf(const WritePlan& plan, const std::filesystem::path& out) {
  const BlockFormat& format = block_format(plan);
  std::vector<Placed> tensors;
  tensors.reserve(plan.tensors.size());
  for (const PlannedTensor& planned : plan.tensors) {
    tensors.push_back(place(plan, planned, format));
  }
  if (!plan.options.block_format.empty() && !has_ternary(plan)) {
    throw Error(plan.source.path().string() + ": no ternary matrix to write as " + std::string(format.name) +
                "; `trit pack` makes float matrices ternary");
  }
  const gguf::ByteWriter header = make_header(plan, format, tensors);
  AtomicFile file(out);
  file.write(header.bytes());
  Progress progress(plan);
  for (const Placed& placed : tensors) {
    if (placed.scales) {
      write_blocks(plan, placed, format, file, progress);
    } else {
      copy_elements(
          plan, *placed.planned->tensor, [&](std::span<const std::byte> bytes) { file.write(bytes); },
          progress);
    }
    constexpr std::array<std::byte, gguf::kDefaultAlignment> kPadding{};
    file.write(std::span(kPadding).first(round_up(placed.bytes, gguf::kDefaultAlignment) - placed.bytes));
  }
  file.commit();
}

}  // namespace trit::io
