// SPDX-License-Identifier: MIT
//
// Reads the keys of rotated weights, from JSON text or from the pairs of a GGUF file. A value that is not known
// is an error: a model whose rotation is misunderstood computes nonsense that looks right.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>

#include "io/json_scalars.h"
#include "io/rotation.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Path = std::span<const std::string>;

constexpr JsonRules kRules{.max_bytes = kMaxRotationBytes, .max_depth = 4};
constexpr std::array<std::int64_t, 4> kBlocks{512, 1024, 2048, 4096};

/// Takes the keys one by one, each with one value or with those of an array.
class Reader {
 public:
  explicit Reader(std::string what) : what_(std::move(what)) {}

  void add(Path path, const JsonScalar& value) {
    const std::string& key = path.front();
    const bool known = key.starts_with(kRotationPrefix);
    const std::string name = known ? key.substr(kRotationPrefix.size()) : "";
    const bool array = name == "sign_widths" || name == "sign_values" || name == "weight_names" ||
                       name == "inverse_weight_names";
    if (path.size() != (array ? 2 : 1)) {
      fail(key, path.size() > 1 ? "is an array or an object" : "is " + scalar_text(value),
           array ? "an array" : "one value");
    }
    if (!array) {
      seen_.insert(name);
    }
    if (name == "version") {
      require(key, value, 1);
    } else if (name == "block_size") {
      rotation_.block = integer(key, value);
      if (std::ranges::find(kBlocks, rotation_.block) == kBlocks.end()) {
        fail(key, "is " + scalar_text(value), "512, 1024, 2048 or 4096");
      }
    } else if (name == "transform") {
      require(key, value, kRotationTransform);
    } else if (name == "axis") {
      require(key, value, kRotationAxis);
    } else if (name == "sign_mode") {
      const std::string mode = text(key, value);
      if (mode != "identity" && mode != "explicit") {
        fail(key, "is " + scalar_text(value), "\"identity\" or \"explicit\"");
      }
      explicit_ = mode == "explicit";
    } else if (name == "gdn_v_grouped") {
      const bool* flag = std::get_if<bool>(&value);
      if (flag == nullptr) {
        fail(key, "is " + scalar_text(value), "true or false");
      }
      rotation_.grouped_v_heads = *flag;
    } else if (name == "sign_widths") {
      add_width(key, value);
    } else if (name == "sign_values") {
      const std::int64_t sign = integer(key, value);
      if (sign != 1 && sign != -1) {
        fail(key, "has " + scalar_text(value) + " at " + path[1], "1 or -1");
      }
      values_.push_back(static_cast<std::int8_t>(sign));
    } else if (name == "weight_names") {
      rotation_.weights.push_back(text(key, value));
    } else if (name == "inverse_weight_names") {
      rotation_.look_ups.push_back(text(key, value));
    } else {
      throw Error(what_ + ": unknown key " + quoted_name(key) +
                  " of rotated weights; without it the results would be wrong");
    }
  }

  Rotation finish() {
    for (const char* name : {"version", "block_size", "transform", "axis", "sign_mode"}) {
      if (!seen_.contains(name)) {
        fail(std::string(kRotationPrefix) + name, "is missing",
             "a value beside the other keys of rotated weights");
      }
    }
    if (rotation_.weights.empty() && rotation_.look_ups.empty()) {
      fail(std::string(kRotationPrefix) + "weight_names", "names no matrix", "the rotated ones");
    }
    split_signs();
    return std::move(rotation_);
  }

 private:
  [[noreturn]] void fail(const std::string& key, const std::string& found, const std::string& wanted) const {
    throw Error(what_ + ": " + quoted_name(key) + " " + found + ", wanted " + wanted);
  }
  std::int64_t integer(const std::string& key, const JsonScalar& value) const {
    constexpr double kLargest = 1 << 30;
    const double* number = std::get_if<double>(&value);
    if (number == nullptr || *number != std::floor(*number) || std::fabs(*number) > kLargest) {
      fail(key, "has " + scalar_text(value), "whole numbers up to 2^30");
    }
    return static_cast<std::int64_t>(*number);
  }
  std::string text(const std::string& key, const JsonScalar& value) const {
    const auto* found = std::get_if<std::string>(&value);
    if (found == nullptr || !is_utf8(*found)) {
      fail(key, "has " + scalar_text(value), "text");
    }
    return *found;
  }
  void require(const std::string& key, const JsonScalar& value, std::int64_t wanted) const {
    if (integer(key, value) != wanted) {
      fail(key, "is " + scalar_text(value), std::to_string(wanted));
    }
  }
  void require(const std::string& key, const JsonScalar& value, std::string_view wanted) const {
    if (text(key, value) != wanted) {
      fail(key, "is " + scalar_text(value), quoted_name(wanted));
    }
  }
  void add_width(const std::string& key, const JsonScalar& value) {
    const std::int64_t width = integer(key, value);
    if (width < 1 || std::ranges::find(widths_, width) != widths_.end()) {
      fail(key, "has " + scalar_text(value) + (width < 1 ? "" : " twice"), "numbers of inputs, each once");
    }
    widths_.push_back(width);
  }
  void split_signs() {
    const std::string widths_key = std::string(kRotationPrefix) + "sign_widths";
    const std::string values_key = std::string(kRotationPrefix) + "sign_values";
    if (!explicit_ && !(widths_.empty() && values_.empty())) {
      fail(widths_.empty() ? values_key : widths_key, "is present beside sign_mode \"identity\"",
           "it only with \"explicit\"");
    }
    if (explicit_ && widths_.empty()) {
      fail(widths_key, "is missing or empty", "the numbers of inputs of sign_mode \"explicit\"");
    }
    std::int64_t total = 0;
    for (const std::int64_t width : widths_) {
      if (width % rotation_.block != 0) {
        fail(widths_key, "has " + std::to_string(width),
             "multiples of block_size, " + std::to_string(rotation_.block));
      }
      total += width;
    }
    if (static_cast<std::uint64_t>(total) != values_.size()) {
      fail(values_key, "has " + std::to_string(values_.size()) + " values",
           std::to_string(total) + ", the sum of sign_widths");
    }
    auto next = values_.begin();
    for (const std::int64_t width : widths_) {
      rotation_.signs[width].assign(next, next + width);
      next += width;
    }
  }

  std::string what_;
  Rotation rotation_;
  std::set<std::string, std::less<>> seen_;
  bool explicit_ = false;
  std::vector<std::int64_t> widths_;
  std::vector<std::int8_t> values_;
};

/// The value of a pair, or each of an array, as JSON would have it.
void for_each_value(const GgufPair& pair, const std::function<void(Path, const JsonScalar&)>& found) {
  std::vector<std::string> path{std::string(pair.key)};
  const auto scalar = [](const GgufPair& one) -> JsonScalar {
    if (const auto text = gguf::string_value(one)) {
      return std::string(*text);
    }
    if (gguf::type_of(one) == gguf::kBool) {
      return one.value[4] != std::byte{0};
    }
    const auto number = gguf::number_value(one);
    return number ? JsonScalar(*number) : JsonScalar(nullptr);
  };
  if (gguf::type_of(pair) != gguf::kArray) {
    found(path, scalar(pair));
    return;
  }
  // Each element as a pair of its own: its type, then its bytes.
  std::uint64_t count = 0;
  std::memcpy(&count, pair.value.data() + 8, sizeof(count));
  const auto type = pair.value.subspan(4, 4);
  auto rest = pair.value.subspan(16);
  std::vector<std::byte> element(type.begin(), type.end());
  std::uint32_t type_number = 0;
  std::memcpy(&type_number, type.data(), sizeof(type_number));
  path.emplace_back();
  for (std::uint64_t i = 0; i < count; ++i) {
    std::size_t size = gguf::value_size(type_number);
    if (size == 0) {
      std::uint64_t length = 0;
      std::memcpy(&length, rest.data(), sizeof(length));
      size = sizeof(length) + static_cast<std::size_t>(length);
    }
    element.resize(4);
    element.insert(element.end(), rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size));
    rest = rest.subspan(size);
    path[1] = std::to_string(i);
    found(path, scalar({pair.key, element}));
  }
}

}  // namespace

std::optional<Rotation> rotation_of(const Metadata& metadata, const std::string& what) {
  const auto text = metadata.find(kRotationKey);
  if (text == metadata.end()) {
    return std::nullopt;
  }
  Reader reader(what);
  for_each_scalar(
      text->second, what, [&](Path path, const JsonScalar& value) { reader.add(path, value); }, kRules);
  return reader.finish();
}

std::optional<Rotation> rotation_of(std::span<const GgufPair> pairs, const std::string& what) {
  Reader reader(what);
  bool any = false;
  for (const GgufPair& pair : pairs) {
    if (pair.key.starts_with(kRotationPrefix)) {
      any = true;
      for_each_value(pair, [&](Path path, const JsonScalar& value) { reader.add(path, value); });
    }
  }
  return any ? std::optional(reader.finish()) : std::nullopt;
}

}  // namespace trit::io
