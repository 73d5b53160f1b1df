// SPDX-License-Identifier: MIT
//
// GGUF version 3, all little endian:
//
//   "GGUF" | u32 3 | u64 tensors | u64 pairs
//   pairs     u64 n, key[n] | u32 type | value
//             a string is u64 n, bytes[n]; an array is u32 type, u64 n, values
//   tensors   u64 n, name[n] | u32 dims | u64 dims[], innermost first | u32 type | u64 offset
//   padding   to general.alignment (32)
//   data      each tensor padded to the alignment; offsets count from the beginning of the data
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/integer.h"
#include "io/codecs/blocks.h"
#include "trit/io.h"

namespace trit::io::gguf {

inline constexpr std::string_view kMagic = "GGUF";
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint64_t kDefaultAlignment = 32;
inline constexpr std::size_t kMaxDimensions = 4;
inline constexpr std::size_t kMaxNameBytes = 64;

/// Types of values: numbers in the file, which may hold others.
inline constexpr std::uint32_t kUint8 = 0;
inline constexpr std::uint32_t kInt8 = 1;
inline constexpr std::uint32_t kUint16 = 2;
inline constexpr std::uint32_t kInt16 = 3;
inline constexpr std::uint32_t kUint32 = 4;
inline constexpr std::uint32_t kInt32 = 5;
inline constexpr std::uint32_t kFloat32 = 6;
inline constexpr std::uint32_t kBool = 7;
inline constexpr std::uint32_t kString = 8;
inline constexpr std::uint32_t kArray = 9;
inline constexpr std::uint32_t kUint64 = 10;
inline constexpr std::uint32_t kInt64 = 11;
inline constexpr std::uint32_t kFloat64 = 12;

/// Bytes of a value of a fixed size; 0 for strings, arrays and unknown types.
std::size_t value_size(std::uint32_t type);

/// A type of tensors: `weights` elements of a row are one block of `bytes` bytes.
struct GgmlType {
  std::uint32_t id;
  std::string_view name;  // where the elements lie one by one also what safetensors calls the type
  std::int64_t weights;   // 1: elements lie one by one; 0: ggml has removed the type
  std::int64_t bytes;

  bool has_elements() const { return weights == 1; }
  bool is_removed() const { return weights == 0; }
};
/// Null for a type that ggml does not have. I2_S of bitnet.cpp (id 36) is not among them.
const GgmlType* find_type(std::uint32_t id);
const GgmlType* find_type(std::string_view name);

/// "Q4_0 (2)", or "unknown type 77".
std::string type_text(std::uint32_t id);
/// Of all types, for errors: "0 to 42, PQ2_0 (142), ...".
std::string types_text();

/// The bytes of a header, appended value by value.
class ByteWriter {
 public:
  template <typename Value>
  void number(Value value) {
    append(std::as_bytes(std::span(&value, 1)));
  }
  void string(std::string_view text) {
    number(static_cast<std::uint64_t>(text.size()));
    append(std::as_bytes(std::span(text)));
  }
  void append(std::span<const std::byte> bytes) {
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void pad(std::uint64_t alignment) { bytes_.resize(round_up<std::uint64_t>(bytes_.size(), alignment)); }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_)); }

 private:
  std::string bytes_;
};

struct TensorEntry {
  std::string_view name;
  std::array<std::int64_t, kMaxDimensions> shape{};  // outermost first
  std::uint32_t dimensions = 0;
  std::uint32_t type = 0;
  std::uint64_t offset = 0;  // in the file
  std::uint64_t bytes = 0;
};

/// Metadata key of files that convert() writes: the ternary type of their matrices, as BlockFormat::option
/// has it. Types 42 and 143 have another meaning elsewhere.
inline constexpr std::string_view kBlockFormatKey = "trit.block_format";

struct Header {
  std::vector<GgufPair> pairs;
  std::deque<TensorEntry> tensors;  // in the file's order
  std::uint64_t alignment = kDefaultAlignment;
  std::string architecture;
  std::string block_format;  // what types 42 and 143 stand for, as far as it is known
};

/// What a header may not say: the later parts of a split model have what the first one says.
struct HeaderDefaults {
  std::string_view architecture = {};  // of a file without general.architecture
  std::string_view block_format = {};  // OpenOptions::block_format
};

/// Parses and checks everything but the data; names and values refer to `file`. `check_pairs` sees the keys
/// before any tensor is looked at. A tensor of type 42 that holds blocks of 128 gets the type of PQ2_0.
/// Throws trit::Error, with `name` and the byte, for anything malformed.
Header parse_header(std::span<const std::byte> file, const std::string& name, const HeaderDefaults& defaults,
                    const std::function<void(std::span<const GgufPair>)>& check_pairs);

/// The number of the value's type.
std::uint32_t type_of(const GgufPair& pair);
/// The pair with this key, or null.
const GgufPair* find_pair(std::span<const GgufPair> pairs, std::string_view key);
/// The text of a string value; nothing for other types.
std::optional<std::string_view> string_value(const GgufPair& pair);
/// The value of an integer of any size; nothing for other types and for values above 2^63 - 1.
std::optional<std::int64_t> integer_value(const GgufPair& pair);
/// The value of a number of any type; nothing for other types.
std::optional<double> number_value(const GgufPair& pair);

}  // namespace trit::io::gguf
