// SPDX-License-Identifier: MIT
//
// The JSON header of a safetensors file, read event by event into a table: no document tree (it would take
// ten times the text), equal keys refused (a tree keeps the last of them silently), and no memory beyond what
// the text itself justifies.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace trit::io {

/// One entry of the header; `begin` and `end` are relative to the end of the header.
struct HeaderEntry {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct Header {
  std::map<std::string, HeaderEntry, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
};

/// Headers of 100 MB and dimensions beyond 32 occur in no real file; both limits bound what a hostile one
/// costs.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr std::size_t kMaxRank = 32;

/// Parses `text`, which starts at byte 8 of `file`. Checks everything that needs no knowledge of the file's
/// size: JSON, UTF-8, keys, dtypes, shapes, begin <= end, and end - begin against dtype and shape. Throws
/// Error.
Header parse_header(std::string_view text, const std::string& file);

}  // namespace trit::io
