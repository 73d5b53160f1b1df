// SPDX-License-Identifier: MIT
//
// GGUF version 3 (gguf.h) with the matrices in one of ggml's ternary block formats: the codes as they are,
// and in every block d = the row's scale rounded to float16. All else is copied byte for byte, blocks of
// types that are not decoded too.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/atomic_file.h"
#include "io/codecs/codes.h"
#include "io/dtype.h"
#include "io/gguf_parts.h"
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
  std::vector<std::uint16_t> scale;  // float16, [1] or [N], of a ternary matrix; else it is copied
};

std::string number_text(float value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", static_cast<double>(value));
  return text.data();
}

/// The format that the options name.
const BlockFormat& block_format(const std::string& option) {
  if (option.empty()) {
    return kTq2_0;
  }
  std::string names;
  for (const BlockFormat* format : block_formats()) {
    if (format->option == option) {
      return *format;
    }
    names += (names.empty() ? "" : ", ") + std::string(format->option);
  }
  throw Error("gguf: there is no ternary type \"" + option + "\", wanted one of " + names);
}

/// Relative error of the scale that is stored.
double error_of(std::uint16_t half, float scale) {
  const auto exact = static_cast<double>(scale);
  return std::fabs(static_cast<double>(float16_to_float(half)) - exact) / exact;
}

/// The scales of a matrix as float16. One below float16's normal range loses more than the 2^-11 of a
/// rounding: that is told. The scale of zeros means nothing: where float16 has none that is as good, it is 1.
std::vector<std::uint16_t> half_scale(const WritePlan& plan, const PlannedTensor& planned,
                                      std::span<const float> scale) {
  constexpr double kRounding = 0x1p-11;
  constexpr std::uint16_t kInfinity = 0x7c00;
  constexpr std::uint16_t kOne = 0x3c00;
  std::vector<std::uint16_t> half(scale.size());
  std::transform(scale.begin(), scale.end(), half.begin(), float_to_float16);
  const auto is_bad = [&](std::size_t i) {
    return half[i] >= kInfinity || error_of(half[i], scale[i]) > kRounding;
  };
  std::vector<bool> zero;  // rows, or the whole matrix; known where it matters
  std::size_t worst = scale.size();
  std::size_t inexact = 0;
  for (std::size_t i = 0; i < scale.size(); ++i) {
    if (!is_bad(i)) {
      continue;
    }
    if (zero.empty()) {
      zero = zero_rows(plan.source, *planned.tensor);
      if (scale.size() == 1) {
        zero = {std::ranges::all_of(zero, [](bool row) { return row; })};
      }
    }
    if (zero[i]) {
      half[i] = kOne;
      continue;
    }
    if (half[i] == 0 || half[i] >= kInfinity) {
      throw Error("tensor " + quoted_name(planned.name) + ": scale " + std::to_string(i) + " is " +
                  number_text(scale[i]) + ", which float16 rounds to " + (half[i] == 0 ? "0" : "infinity") +
                  "; GGUF keeps scales as float16. Formats that can hold it: " +
                  formats_that_hold(*planned.tensor, scale));
    }
    ++inexact;
    worst = worst == scale.size() || error_of(half[i], scale[i]) > error_of(half[worst], scale[worst])
                ? i
                : worst;
  }
  if (inexact != 0 && plan.options.warn) {
    const std::string rows = scale.size() == 1 ? ""
                                               : " in row " + std::to_string(worst) + ", the worst of " +
                                                     std::to_string(inexact) + " such rows of " +
                                                     std::to_string(scale.size());
    plan.options.warn(
        "tensor " + quoted_name(planned.name) + ": the scale " + number_text(scale[worst]) +
        " is below float16's normal range and becomes " + number_text(float16_to_float(half[worst])) + ", " +
        number_text(static_cast<float>(100 * error_of(half[worst], scale[worst]))) + " % off" + rows);
  }
  return half;
}

std::span<const std::int64_t> shape_of(const TensorInfo& tensor) {
  return tensor.stack.empty() ? tensor.shape : tensor.stack;
}

/// Whether a matrix is copied as it lies in a GGUF file: one with many scales in a row, which is no ternary
/// matrix but a quantised float one, in the type that is wanted.
bool is_copied(const Checkpoint& source, const TensorInfo& tensor, const BlockFormat& format) {
  const auto count = static_cast<std::uint64_t>(checked_numel(tensor.shape).value_or(0));
  return tensor.kind == TensorKind::ternary && tensor.type == format.name &&
         source.format() == Format::gguf &&
         tensor.stored_bytes ==
             count / static_cast<std::uint64_t>(format.weights) * static_cast<std::uint64_t>(format.bytes) &&
         !source.has_weight_scale(tensor);
}

Placed place(const WritePlan& plan, const PlannedTensor& planned, const BlockFormat& format) {
  const TensorInfo& tensor = *planned.tensor;
  const std::string what = "tensor " + quoted_name(planned.name) + ": ";
  if (planned.name.size() > kLongestName) {
    throw Error(what + "a name of " + std::to_string(planned.name.size()) + " bytes, GGUF takes at most " +
                std::to_string(kLongestName) + "; --map gives other names");
  }
  const std::int64_t count = checked_numel(tensor.shape).value_or(0);
  if (is_copied(plan.source, tensor, format)) {
    return {&planned, shape_of(tensor), format.ggml_type, tensor.stored_bytes, {}};
  }
  if (tensor.kind == TensorKind::ternary) {
    const std::vector<float> scale = read_scale(plan, tensor);
    if (tensor.shape[1] % format.weights != 0) {
      throw Error(what + "rows of " + std::to_string(tensor.shape[1]) + " weights, " +
                  std::string(format.name) + " takes multiples of " + std::to_string(format.weights) +
                  ". Formats that can hold it: " + formats_that_hold(tensor, scale));
    }
    return {&planned, shape_of(tensor), format.ggml_type,
            static_cast<std::uint64_t>(count / format.weights * format.bytes),
            half_scale(plan, planned, scale)};
  }
  const gguf::GgmlType* type = gguf::find_type(tensor.type);
  const bool known = type != nullptr && (type->has_elements() || tensor.kind == TensorKind::blocks);
  if (!known || tensor.shape.size() > gguf::kMaxDimensions) {
    throw Error(what + std::string(tensor.type) + " " + shape_text(tensor.shape) +
                ", GGUF holds F32, F16, BF16, F64, I8, I16, I32 and I64 of up to 4 dimensions."
                " Formats that can hold it: trit, hf");
  }
  const Elements elements = elements_of(tensor);
  return {&planned, tensor.shape, type->id, static_cast<std::uint64_t>(elements.bytes(elements.count)), {}};
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
           name == "general.quantization_version" ||
           (name == "general.architecture" && !plan.options.architecture.empty()) ||
           plan.metadata.contains(name);
  };
  bool architecture = false;
  for (const GgufPair& pair : plan.source.gguf_pairs()) {
    if (!replaced(pair.key)) {
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
  for (const auto& [name, value] : plan.metadata) {
    key(name, gguf::kString);
    header.string(value);
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

void write_blocks(const WritePlan& plan, const Placed& placed, const BlockFormat& format, AtomicFile& file,
                  Progress& progress) {
  const TensorInfo& tensor = *placed.planned->tensor;
  const auto inputs = static_cast<std::size_t>(tensor.shape[1]);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
  const auto row_blocks = inputs / static_cast<std::size_t>(format.weights);
  std::vector<std::uint8_t> codes(inputs);
  std::vector<std::uint8_t> blocks;
  for_each_rows(
      plan, tensor, progress,
      [&](std::span<const std::uint8_t> packed, std::int64_t first, std::int64_t rows) {
        blocks.resize(static_cast<std::size_t>(rows) * row_blocks * static_cast<std::size_t>(format.bytes));
        std::uint8_t* block = blocks.data();
        for (std::int64_t row = 0; row < rows; ++row) {
          unpack_codes(packed.subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes), codes);
          const std::uint16_t d =
              placed.scale[placed.scale.size() == 1 ? 0 : static_cast<std::size_t>(first + row)];
          for (std::size_t b = 0; b < row_blocks; ++b, block += format.bytes) {
            format.encode(codes.data() + b * static_cast<std::size_t>(format.weights), block);
            set_block_scale(format, block, d);
          }
        }
        file.write(std::as_bytes(std::span(blocks)));
      });
}

}  // namespace

void write_gguf(const WritePlan& plan, const std::filesystem::path& out) {
  const BlockFormat& format = block_format(plan.options.block_format);
  std::vector<Placed> tensors;
  tensors.reserve(plan.tensors.size());
  for (const PlannedTensor& planned : plan.tensors) {
    tensors.push_back(place(plan, planned, format));
  }
  const auto is_ternary = [](const PlannedTensor& planned) {
    return planned.tensor->kind == TensorKind::ternary;
  };
  if (!plan.options.block_format.empty() && std::ranges::none_of(plan.tensors, is_ternary)) {
    throw Error(plan.source.path().string() + ": no ternary matrix to write as " + std::string(format.name) +
                "; `trit pack` makes float matrices ternary");
  }
  const gguf::ByteWriter header = make_header(plan, format, tensors);
  AtomicFile file(out);
  file.write(header.bytes());
  Progress progress(plan);
  for (const Placed& placed : tensors) {
    if (!placed.scale.empty()) {
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
