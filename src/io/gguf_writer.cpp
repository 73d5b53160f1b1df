// SPDX-License-Identifier: MIT
//
// GGUF version 3 (gguf.h) with the matrices in one of ggml's ternary block formats: the codes as they are,
// and in every block d = the row's scale rounded to float16.
#include <algorithm>
#include <cstring>

#include "io/atomic_file.h"
#include "io/codecs/codes.h"
#include "io/dtype.h"
#include "io/gguf.h"
#include "io/tensor_names.h"
#include "io/write_plan.h"
#include "trit/error.h"

namespace trit::io {
namespace {

// ggml keeps names in 64 bytes with a NUL.
constexpr std::size_t kLongestName = gguf::kMaxNameBytes - 1;

/// The header's bytes.
class Bytes {
 public:
  template <typename Value>
  void number(Value value) {
    append(std::as_bytes(std::span(&value, 1)));
  }
  void string(std::string_view text) {
    number(static_cast<std::uint64_t>(text.size()));
    bytes_ += text;
  }
  void append(std::span<const std::byte> bytes) {
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void pad(std::uint64_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_)); }

 private:
  std::string bytes_;
};

struct Placed {
  const PlannedTensor* planned;
  std::uint32_t type;
  std::uint64_t bytes;
  std::vector<std::uint16_t> scale;  // float16, [1] or [N], of a ternary matrix
};

const BlockFormat& block_format(const std::string& option) {
  std::string names;
  for (const BlockFormat* format : block_formats()) {
    if (format->option == option) {
      return *format;
    }
    names += (names.empty() ? "" : ", ") + std::string(format->option);
  }
  throw Error("gguf: there is no ternary type \"" + option + "\", wanted one of " + names);
}

std::vector<std::uint16_t> half_scale(const PlannedTensor& planned, std::span<const float> scale) {
  std::vector<std::uint16_t> half(scale.size());
  for (std::size_t i = 0; i < scale.size(); ++i) {
    half[i] = float_to_float16(scale[i]);
    if (half[i] == 0 || half[i] >= 0x7c00U) {
      throw Error("tensor " + quoted_name(planned.name) + ": scale " + std::to_string(i) + " is " +
                  std::to_string(scale[i]) + ", which float16 rounds to " +
                  (half[i] == 0 ? "0" : "infinity") +
                  "; GGUF keeps scales as float16. Formats that can hold it: " +
                  formats_that_hold(*planned.tensor, scale));
    }
  }
  return half;
}

Placed place(const WritePlan& plan, const PlannedTensor& planned, const BlockFormat& format) {
  const TensorInfo& tensor = *planned.tensor;
  const std::string what = "tensor " + quoted_name(planned.name) + ": ";
  if (planned.name.size() > kLongestName) {
    throw Error(what + "a name of " + std::to_string(planned.name.size()) + " bytes, GGUF takes at most " +
                std::to_string(kLongestName) + "; --map gives other names");
  }
  const std::int64_t count = checked_numel(tensor.shape).value_or(0);
  if (tensor.kind == TensorKind::ternary) {
    const std::vector<float> scale = read_scale(plan, tensor);
    if (tensor.shape[1] % format.weights != 0) {
      throw Error(what + "rows of " + std::to_string(tensor.shape[1]) + " weights, " +
                  std::string(format.name) + " takes multiples of " + std::to_string(format.weights) +
                  ". Formats that can hold it: " + formats_that_hold(tensor, scale));
    }
    return {&planned, format.ggml_type, static_cast<std::uint64_t>(count / format.weights * format.bytes),
            half_scale(planned, scale)};
  }
  const gguf::ElementType* type = gguf::element_type(tensor.type);
  if (type == nullptr || count == 0 || tensor.shape.size() > gguf::kMaxDimensions) {
    throw Error(what + std::string(tensor.type) + " " + shape_text(tensor.shape) +
                ", GGUF holds F32, F16, BF16, F64, I8, I16, I32 and I64 of up to 4 dimensions and at least "
                "one element."
                " Formats that can hold it: trit, hf");
  }
  return {&planned, type->ggml_type, static_cast<std::uint64_t>(count) * dtype_size(tensor.type), {}};
}

/// Keys and values: those of a GGUF source as they are, else the few that readers expect.
void write_pairs(const WritePlan& plan, const BlockFormat& format, Bytes& header, std::uint64_t& count) {
  const auto key = [&](std::string_view name, std::uint32_t type) {
    header.string(name);
    header.number(type);
    ++count;
  };
  const auto replaced = [&](std::string_view name) {
    return name == "general.alignment" || name == "general.file_type" ||
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
  // llama.cpp's LLAMA_FTYPE_MOSTLY_TQ1_0 and _TQ2_0; it has none for Q2_0.
  if (&format == &kTq1_0 || &format == &kTq2_0) {
    key("general.file_type", gguf::kUint32);
    header.number(&format == &kTq1_0 ? std::uint32_t{36} : std::uint32_t{37});
  }
  for (const auto& [name, value] : plan.metadata) {
    key(name, gguf::kString);
    header.string(value);
  }
}

Bytes make_header(const WritePlan& plan, const BlockFormat& format, std::span<const Placed> tensors) {
  Bytes pairs;
  std::uint64_t pair_count = 0;
  write_pairs(plan, format, pairs, pair_count);
  Bytes header;
  header.append(std::as_bytes(std::span(gguf::kMagic)));
  header.number(gguf::kVersion);
  header.number(static_cast<std::uint64_t>(tensors.size()));
  header.number(pair_count);
  header.append(pairs.bytes());
  std::uint64_t offset = 0;
  for (const Placed& placed : tensors) {
    const auto shape = placed.planned->tensor->shape;
    header.string(placed.planned->name);
    // GGUF has no scalars.
    header.number(static_cast<std::uint32_t>(std::max<std::size_t>(shape.size(), 1)));
    if (shape.empty()) {
      header.number(std::uint64_t{1});
    }
    for (std::size_t i = shape.size(); i > 0; --i) {
      header.number(static_cast<std::uint64_t>(shape[i - 1]));
    }
    header.number(placed.type);
    header.number(offset);
    offset +=
        (placed.bytes + gguf::kDefaultAlignment - 1) / gguf::kDefaultAlignment * gguf::kDefaultAlignment;
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
  const Bytes header = make_header(plan, format, tensors);
  AtomicFile file(out);
  file.write(header.bytes());
  Progress progress(plan);
  for (const Placed& placed : tensors) {
    if (placed.planned->tensor->kind == TensorKind::ternary) {
      write_blocks(plan, placed, format, file, progress);
    } else {
      copy_elements(
          plan, *placed.planned->tensor, [&](std::span<const std::byte> bytes) { file.write(bytes); },
          progress);
    }
    constexpr std::array<std::byte, gguf::kDefaultAlignment> kPadding{};
    file.write(std::span(kPadding).first((gguf::kDefaultAlignment - placed.bytes % gguf::kDefaultAlignment) %
                                         gguf::kDefaultAlignment));
  }
  file.commit();
}

}  // namespace trit::io
