// SPDX-License-Identifier: MIT
#include "io/gguf_parts.h"

#include <algorithm>
#include <cstdio>

#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io::gguf {
namespace {

/// "-00001-of-00003.gguf".
std::string ending_of(std::int64_t number, std::int64_t count) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "-%05lld-of-%05lld.gguf", static_cast<long long>(number),
                static_cast<long long>(count));
  return text.data();
}

using Pairs = std::span<const GgufPair>;

/// The value of an integer key of a file. Throws Error for a value of another type.
std::optional<std::int64_t> integer_of(const std::filesystem::path& path, Pairs pairs, std::string_view key) {
  const GgufPair* pair = find_pair(pairs, key);
  if (pair == nullptr) {
    return std::nullopt;
  }
  const auto value = integer_value(*pair);
  if (!value || *value < 0) {
    throw Error(path.string() + ": " + std::string(key) + " is not an integer from 0 to 2^63 - 1");
  }
  return value;
}

/// What a later part says of its place. Throws Error unless it says `number` of `count`, 1-based.
void check_place(const std::filesystem::path& path, Pairs pairs, std::int64_t number, std::int64_t count,
                 const std::string& first) {
  const auto said = [&](std::string_view key, std::int64_t wanted) {
    const auto value = integer_of(path, pairs, key);
    if (value != wanted) {
      throw Error(path.string() + ": " + std::string(key) + " is " +
                  (value ? std::to_string(*value) : "missing") + ", wanted " + std::to_string(wanted) +
                  " in part " + std::to_string(number) + " of the model whose first part is " + first);
    }
  };
  said("split.no", number - 1);
  said("split.count", count);
}

/// Files of the model, which has its keys in the first part: Error for a later one. llama-gguf-split leaves
/// split.count = 0 in a model that it has joined.
std::int64_t count_of_first_part(const std::filesystem::path& path, Pairs pairs) {
  const std::int64_t count = std::max<std::int64_t>(integer_of(path, pairs, "split.count").value_or(1), 1);
  const std::int64_t number = count == 1 ? 1 : integer_of(path, pairs, "split.no").value_or(0) + 1;
  if (number != 1) {
    const std::string name = path.filename().string();
    const std::string_view base = without_ending(name, ending_of(number, count));
    throw Error(path.string() + ": part " + std::to_string(number) + " of " + std::to_string(count) +
                " of a split model, wanted the first one" +
                (base.empty() ? "" : ": " + std::string(base) + ending_of(1, count)));
  }
  return count;
}

void check_tensor_count(const std::deque<Part>& parts) {
  const Part& first = parts.front();
  std::size_t tensors = 0;
  for (const Part& part : parts) {
    tensors += part.header.tensors.size();
  }
  const auto wanted = integer_of(first.path, first.header.pairs, "split.tensors.count");
  if (wanted && static_cast<std::uint64_t>(*wanted) != tensors) {
    throw Error(first.path.string() + ": split.tensors.count is " + std::to_string(*wanted) + ", the " +
                std::to_string(parts.size()) + " parts from " + first.path.filename().string() + " to " +
                parts.back().path.filename().string() + " have " + std::to_string(tensors) + " tensors");
  }
}

}  // namespace

std::deque<Part> open_parts(const std::filesystem::path& path, std::string_view block_format) {
  std::deque<Part> parts;
  std::int64_t count = 1;
  const Part& first = parts.emplace_back(path, HeaderDefaults{.block_format = block_format},
                                         [&](Pairs pairs) { count = count_of_first_part(path, pairs); });
  if (count == 1) {
    return parts;
  }
  const std::string name = path.filename().string();
  const std::string base(without_ending(name, ending_of(1, count)));
  if (base.empty()) {
    throw Error(path.string() + ": part 1 of " + std::to_string(count) +
                " of a split model, wanted a file name that ends in " + ending_of(1, count) +
                ": the other parts are found by their names");
  }
  for (std::int64_t i = 2; i <= count; ++i) {
    const std::filesystem::path other = path.parent_path() / (base + ending_of(i, count));
    try {
      parts.emplace_back(other, HeaderDefaults{first.header.architecture, first.header.block_format},
                         [&](Pairs pairs) { check_place(other, pairs, i, count, name); });
    } catch (const Error& error) {
      throw Error(path.string() + ": part 1 of " + std::to_string(count) + " of a split model; part " +
                  std::to_string(i) + ": " + error.what());
    }
  }
  check_tensor_count(parts);
  return parts;
}

}  // namespace trit::io::gguf
