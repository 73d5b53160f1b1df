// SPDX-License-Identifier: MIT
#include "io/safetensors_stream.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "io/checksum.h"
#include "io/dtype.h"
#include "io/safetensors_header.h"
#include "trit/error.h"

namespace trit::io {
namespace {

/// Bytes of the entry's data.
std::uint64_t check_entry(const SafetensorsEntry& entry, const std::string& file) {
  const std::string what = file + ": tensor \"" + entry.name + "\": ";
  if (entry.name.empty() || entry.name == "__metadata__" || entry.name.find('\0') != std::string::npos) {
    throw Error(what + "a name must not be empty, \"__metadata__\", or contain a NUL");
  }
  if (dtype_bits(entry.dtype) == 0) {
    throw Error(what + "dtype \"" + entry.dtype + "\", wanted one of " + dtype_names());
  }
  if (entry.shape.size() > kMaxRank) {
    throw Error(what + std::to_string(entry.shape.size()) + " dimensions, wanted at most " +
                std::to_string(kMaxRank));
  }
  const auto bytes = checked_bytes(entry.dtype, entry.shape);
  if (!bytes) {
    throw Error(what + size_problem(entry.dtype, entry.shape));
  }
  return static_cast<std::uint64_t>(*bytes);
}

/// JSON text of a string; throws Error on invalid UTF-8.
std::string quoted(const std::string& text, const std::string& file) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(file + ": a name or a metadata string is not valid UTF-8");
  }
}

std::string metadata_json(const std::map<std::string, std::string, std::less<>>& metadata,
                          const std::string& file) {
  std::string text = "\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    if (key.find('\0') != std::string::npos) {
      throw Error(file + ": a metadata key contains a NUL");
    }
    text += (text.back() == '{' ? "" : ",") + quoted(key, file) + ":" + quoted(value, file);
  }
  return text + "}";
}

void refuse_equal_names(std::span<const SafetensorsEntry> entries, const std::string& file) {
  std::set<std::string_view> names;
  for (const SafetensorsEntry& entry : entries) {
    if (!names.insert(entry.name).second) {
      throw Error(file + ": tensor \"" + entry.name + "\" is given twice");
    }
  }
}

std::string entry_json(const SafetensorsEntry& entry, std::uint64_t begin, std::uint64_t end,
                       const std::string& file) {
  const nlohmann::json shape = entry.shape;
  return quoted(entry.name, file) + ":{\"dtype\":\"" + entry.dtype + "\",\"shape\":" + shape.dump() +
         ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

constexpr std::string_view kNoChecksum = "00000000";

}  // namespace

SafetensorsStream::SafetensorsStream(const std::filesystem::path& path,
                                     std::span<const SafetensorsEntry> entries,
                                     const std::map<std::string, std::string, std::less<>>& metadata)
    : file_(path), entries_(entries.begin(), entries.end()), metadata_(metadata) {
  const std::string file = path.string();
  refuse_equal_names(entries, file);
  order_.resize(entries.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  std::sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
    const std::size_t a_size = dtype_bits(entries[a].dtype);
    const std::size_t b_size = dtype_bits(entries[b].dtype);
    return a_size != b_size ? a_size > b_size : entries[a].name < entries[b].name;
  });
  const bool checked = metadata.contains("trit.layout");
  if (checked) {
    metadata_.insert_or_assign(std::string(kChecksumKey), kNoChecksum);
  }
  std::string text = "{";
  if (!metadata_.empty()) {
    text += metadata_json(metadata_, file);
  }
  if (checked) {
    const std::string entry = "\"" + std::string(kChecksumKey) + "\":\"";
    checksum_offset_ = 8 + text.find(entry + std::string(kNoChecksum) + "\"") + entry.size();
  }
  std::uint64_t begin = 0;
  for (const std::size_t index : order_) {
    const std::uint64_t end = begin + check_entry(entries[index], file);
    if (end >= std::uint64_t{1} << 62) {
      throw Error(file + ": the tensors have more than 2^62 bytes");
    }
    text += (text.size() == 1 ? "" : ",") + entry_json(entries[index], begin, end, file);
    written_.push_back({end, 0});
    begin = end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    throw Error(file + ": a header of " + std::to_string(text.size()) + " bytes, readers accept at most " +
                std::to_string(kMaxHeaderBytes));
  }
  std::byte length[8];
  for (std::size_t i = 0; i < 8; ++i) {
    length[i] = static_cast<std::byte>(static_cast<std::uint64_t>(text.size()) >> (8 * i) & 0xffU);
  }
  file_.write(length);
  file_.write(std::as_bytes(std::span(text)));
  data_begin_ = file_.size();
}

void SafetensorsStream::write(std::span<const std::byte> bytes) {
  if (checksum_offset_ == 0) {
    file_.write(bytes);
    return;
  }
  while (!bytes.empty()) {
    const std::uint64_t position = file_.size() - data_begin_;
    while (current_ < written_.size() && written_[current_].end <= position) {
      ++current_;
    }
    if (current_ == written_.size()) {
      file_.write(bytes);  // too many bytes: commit() reports it
      return;
    }
    const auto part = bytes.first(std::min<std::size_t>(bytes.size(), written_[current_].end - position));
    written_[current_].crc = crc32c(part, written_[current_].crc);
    file_.write(part);
    bytes = bytes.subspan(part.size());
  }
}

/// Of the metadata by key and the tensors by name.
std::string SafetensorsStream::checksum() const {
  std::vector<std::size_t> by_name(order_.size());
  std::iota(by_name.begin(), by_name.end(), std::size_t{0});
  std::sort(by_name.begin(), by_name.end(), [&](std::size_t a, std::size_t b) {
    return entries_[order_[a]].name < entries_[order_[b]].name;
  });
  ContentChecksum checksum(metadata_);
  for (const std::size_t at : by_name) {
    const SafetensorsEntry& entry = entries_[order_[at]];
    const std::uint64_t begin = at == 0 ? 0 : written_[at - 1].end;
    checksum.add(entry.name, entry.dtype, entry.shape, written_[at].crc, written_[at].end - begin);
  }
  return checksum.text();
}

void SafetensorsStream::commit() {
  const std::uint64_t data_bytes = written_.empty() ? 0 : written_.back().end;
  if (file_.size() - data_begin_ != data_bytes) {
    throw Error(file_.target().string() + ": " + std::to_string(file_.size() - data_begin_) +
                " bytes of data were written, the header names " + std::to_string(data_bytes));
  }
  if (checksum_offset_ != 0) {
    const std::string digits = checksum();
    file_.rewrite(checksum_offset_, std::as_bytes(std::span(digits)));
  }
  file_.commit();
}

}  // namespace trit::io
