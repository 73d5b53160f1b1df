// SPDX-License-Identifier: MIT
//
// The header of a GGUF file. Every count is compared with the bytes that are left before anything is
// allocated for it: a pair takes at least 13 bytes, a tensor 25.
#include <algorithm>
#include <bit>
#include <cstring>

#include "base/integer.h"
#include "io/codecs/blocks.h"
#include "io/codecs/i2_s.h"
#include "io/dtype.h"
#include "io/gguf.h"
#include "io/gguf_ranges.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io::gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "integers are read in the byte order of the file");

/// Reads a file front to back.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(std::uint64_t count, const char* what) {
    if (count > left()) {
      fail(std::string(what) + " of " + std::to_string(count) + " bytes, the file has " +
           std::to_string(left()) + " more");
    }
    const auto part = bytes_.subspan(static_cast<std::size_t>(position_), static_cast<std::size_t>(count));
    position_ += count;
    return part;
  }
  template <typename Value>
  Value read(const char* what) {
    Value value;
    std::memcpy(&value, take(sizeof(Value), what).data(), sizeof(Value));
    return value;
  }
  std::string_view read_string(const char* what) {
    const auto bytes = take(read<std::uint64_t>(what), what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  [[noreturn]] void fail(const std::string& what) const { throw Error(where() + what); }
  /// What an error begins with.
  std::string where() const { return file_ + ": byte " + std::to_string(position_) + ": "; }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::uint64_t position_ = 0;
};

void check_version(Cursor& cursor) {
  if (cursor.take(4, "the magic").empty()) {
    return;
  }
  const auto version = cursor.read<std::uint32_t>("the version");
  if (version == kVersion) {
    return;
  }
  if (version == std::uint32_t{kVersion} << 24 || version == std::uint32_t{2} << 24 || version == 1U << 24) {
    cursor.fail("a big-endian GGUF file, wanted a little-endian one of version 3");
  }
  cursor.fail("GGUF version " + std::to_string(version) + ", wanted version 3" +
              (version < kVersion ? " (write the file again with a current llama.cpp)" : ""));
}

void skip_value(Cursor& cursor, std::string_view key) {
  const auto type = cursor.read<std::uint32_t>("a value's type");
  if (const std::size_t size = value_size(type); size != 0) {
    cursor.take(size, "a value");
  } else if (type == kString) {
    cursor.read_string("a string");
  } else if (type == kArray) {
    const auto element = cursor.read<std::uint32_t>("an array's type");
    const auto count = cursor.read<std::uint64_t>("an array's length");
    if (element == kString) {
      if (count > cursor.left() / 8) {
        cursor.fail("key " + quoted_name(key) + ": an array of " + std::to_string(count) +
                    " strings, the file has " + std::to_string(cursor.left()) + " more bytes");
      }
      for (std::uint64_t i = 0; i < count; ++i) {
        cursor.read_string("a string");
      }
    } else if (const std::size_t element_size = value_size(element); element_size != 0) {
      if (count > cursor.left() / element_size) {
        cursor.fail("key " + quoted_name(key) + ": an array of " + std::to_string(count) + " values of " +
                    std::to_string(element_size) + " bytes, the file has " + std::to_string(cursor.left()) +
                    " more bytes");
      }
      cursor.take(count * element_size, "an array");
    } else {
      cursor.fail("key " + quoted_name(key) + ": an array of type " + std::to_string(element) +
                  ", wanted numbers, bools or strings");
    }
  } else {
    cursor.fail("key " + quoted_name(key) + ": value type " + std::to_string(type) + ", wanted 0..12");
  }
}

void read_pairs(Cursor& cursor, std::uint64_t count, std::span<const std::byte> file, Header& header) {
  constexpr std::uint64_t kMinPairBytes = 13;
  if (count > cursor.left() / kMinPairBytes) {
    cursor.fail(std::to_string(count) + " pairs, the file's " + std::to_string(cursor.left()) +
                " more bytes hold at most " + std::to_string(cursor.left() / kMinPairBytes));
  }
  // Grows with what is really in the file: no memory is allocated for the count alone. Equal keys are found
  // by one sort.
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string_view key = cursor.read_string("a key");
    if (key.empty() || !is_utf8(key) || key.find('\0') != std::string_view::npos) {
      cursor.fail("the key " + quoted_name(key) + " is not text, wanted UTF-8 without a NUL");
    }
    const std::uint64_t begin = cursor.position();
    skip_value(cursor, key);
    header.pairs.push_back({key, file.subspan(begin, cursor.position() - begin)});
  }
  std::vector<GgufPair> sorted = header.pairs;
  std::ranges::sort(sorted, {}, &GgufPair::key);
  if (const auto twice = std::ranges::adjacent_find(sorted, {}, &GgufPair::key); twice != sorted.end()) {
    cursor.fail("the key " + quoted_name(twice->key) + " occurs twice");
  }
}

void read_known_pairs(Cursor& cursor, Header& header) {
  if (const GgufPair* pair = find_pair(header.pairs, "general.architecture")) {
    const auto text = string_value(*pair);
    if (!text || !is_utf8(*text)) {
      cursor.fail("general.architecture is not text, wanted a string in UTF-8");
    }
    header.architecture = *text;
  }
  if (const GgufPair* pair = find_pair(header.pairs, "general.alignment")) {
    const bool is_u32 = type_of(*pair) == kUint32;
    const auto value = is_u32 ? static_cast<std::uint64_t>(integer_value(*pair).value_or(0)) : 0;
    if (!std::has_single_bit(value) || value < 8 || value > 65536) {
      cursor.fail("general.alignment is " + (is_u32 ? std::to_string(value) : "not a u32") +
                  ", wanted a power of two from 8 to 65536");
    }
    header.alignment = value;
  }
  if (const GgufPair* pair = find_pair(header.pairs, kBlockFormatKey);
      pair != nullptr && header.block_format.empty()) {
    header.block_format = string_value(*pair).value_or("");
  }
  const auto is_of_fork = [](const GgufPair& pair) { return pair.key.starts_with("prism."); };
  if (header.block_format.empty() && std::ranges::any_of(header.pairs, is_of_fork)) {
    header.block_format = kPtq1_0.option;
  }
}

/// Bytes of an I2_S matrix of bitnet.cpp.
std::uint64_t i2_s_bytes(const Cursor& cursor, const std::string& what, std::int64_t numel,
                         const TensorEntry& tensor, const Header& header) {
  if (header.architecture.find("bitnet") == std::string::npos) {
    cursor.fail(what + "type 36 with general.architecture " + quoted_name(header.architecture) +
                ", wanted I2_S of bitnet.cpp: an architecture with \"bitnet\" in its name (ggml's IQ4_NL_4_4 "
                "had this number until it was removed)");
  }
  if (tensor.dimensions > 2) {
    cursor.fail(what + "I2_S with " + std::to_string(tensor.dimensions) + " dimensions, wanted a matrix");
  }
  if (numel == 0 || numel % i2_s::kBlockWeights != 0) {
    cursor.fail(what + "I2_S with " + std::to_string(numel) +
                " weights, wanted a multiple of 128 (the order of bitnet.cpp's x86 build; other orders have "
                "the same type and cannot be told apart)");
  }
  return static_cast<std::uint64_t>(numel / 4 + i2_s::kTailBytes);
}

/// Bytes of the tensor's data; checks its type and shape.
std::uint64_t data_bytes(const Cursor& cursor, const TensorEntry& tensor, const Header& header) {
  const auto shape = std::span(tensor.shape).first(tensor.dimensions);
  const std::string what = "tensor " + quoted_name(tensor.name) + ": ";
  const auto numel = checked_numel(shape);
  if (!numel || *numel > INT64_MAX / 8) {
    cursor.fail(what + "shape " + shape_text(shape) + ", wanted fewer than 2^60 elements");
  }
  if (tensor.type == i2_s::kGgmlType) {
    return i2_s_bytes(cursor, what, *numel, tensor, header);
  }
  const GgmlType* type = find_type(tensor.type);
  if (type == nullptr) {
    cursor.fail(what + type_text(tensor.type) + ", wanted one of ggml's types: " + types_text());
  }
  if (tensor.type == kPtq1_0.ggml_type && header.block_format != kPtq1_0.option) {
    cursor.fail(
        what +
        "type 143 in a file without keys prism.*, wanted PTQ1_0 (another project uses this number for "
        "another type; pass --input-type ptq1_0 if it is PTQ1_0)");
  }
  if (type->is_removed()) {
    cursor.fail(what + type_text(tensor.type) +
                ", a type that ggml has removed; wanted a file written by a current llama.cpp");
  }
  const std::int64_t row = shape.empty() ? 1 : shape.back();
  if (row % type->weights != 0) {
    cursor.fail(what + type_text(tensor.type) + " with rows of " + std::to_string(row) +
                ", wanted a multiple of " + std::to_string(type->weights));
  }
  return static_cast<std::uint64_t>(*numel / type->weights) * static_cast<std::uint64_t>(type->bytes);
}

TensorEntry read_tensor(Cursor& cursor, const Header& header, const std::string& file) {
  TensorEntry tensor;
  tensor.name = cursor.read_string("a tensor's name");
  check_tensor_name(tensor.name, file);
  if (tensor.name.size() > kMaxNameBytes) {
    cursor.fail("the tensor name " + quoted_name(tensor.name) + " has " + std::to_string(tensor.name.size()) +
                " bytes, wanted at most " + std::to_string(kMaxNameBytes));
  }
  const std::string what = "tensor " + quoted_name(tensor.name) + ": ";
  tensor.dimensions = cursor.read<std::uint32_t>("the number of dimensions");
  if (tensor.dimensions > kMaxDimensions) {
    cursor.fail(what + std::to_string(tensor.dimensions) + " dimensions, wanted at most 4");
  }
  for (std::uint32_t i = 0; i < tensor.dimensions; ++i) {
    const auto dimension = cursor.read<std::uint64_t>("a dimension");
    if (dimension > INT64_MAX) {
      cursor.fail(what + "a dimension of " + std::to_string(dimension) + ", wanted at most 2^63 - 1");
    }
    tensor.shape[tensor.dimensions - 1 - i] = static_cast<std::int64_t>(dimension);
  }
  tensor.type = cursor.read<std::uint32_t>("a tensor's type");
  tensor.offset = cursor.read<std::uint64_t>("a tensor's offset");
  if (tensor.offset % header.alignment != 0) {
    cursor.fail(what + "offset " + std::to_string(tensor.offset) + ", wanted a multiple of " +
                std::to_string(header.alignment));
  }
  tensor.bytes = data_bytes(cursor, tensor, header);
  return tensor;
}

}  // namespace

Header parse_header(std::span<const std::byte> file, const std::string& name, const HeaderDefaults& defaults,
                    const std::function<void(std::span<const GgufPair>)>& check_pairs) {
  Cursor cursor(file, name);
  check_version(cursor);
  const auto tensors = cursor.read<std::uint64_t>("the number of tensors");
  const auto pairs = cursor.read<std::uint64_t>("the number of pairs");
  Header header;
  header.architecture = defaults.architecture;
  header.block_format = defaults.block_format;
  read_pairs(cursor, pairs, file, header);
  read_known_pairs(cursor, header);
  check_pairs(header.pairs);
  constexpr std::uint64_t kMinTensorBytes = 25;
  if (tensors > cursor.left() / kMinTensorBytes) {
    cursor.fail(std::to_string(tensors) + " tensors, the file's " + std::to_string(cursor.left()) +
                " more bytes hold at most " + std::to_string(cursor.left() / kMinTensorBytes));
  }
  for (std::uint64_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(read_tensor(cursor, header, name));
  }
  const std::uint64_t data_begin =
      std::min<std::uint64_t>(round_up(cursor.position(), header.alignment), file.size());
  place_tensors(header, data_begin, file.size() - data_begin, cursor.where());
  return header;
}

}  // namespace trit::io::gguf
