// SPDX-License-Identifier: MIT
//
// The safetensors reader (trit/safetensors.h): maps the file, trusts nothing in it.
#include <algorithm>
#include <utility>

#include "io/dtype.h"
#include "io/file_kind.h"
#include "io/mapped_file.h"
#include "io/safetensors_header.h"
#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::io {

struct SafetensorsFile::State {
  explicit State(const std::filesystem::path& file) : path(file), mapping(file) {}

  std::filesystem::path path;
  MappedFile mapping;
  std::map<std::string, TensorView, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
};

namespace {

constexpr std::uint64_t kLengthBytes = 8;

/// The header's text. Every size is compared before it is used.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& file) {
  const std::string other = foreign_file(bytes);
  const auto fail = [&](const std::string& what) {
    throw Error(file + ": " + (other.empty() ? what : other + "; wanted a safetensors file"));
  };
  if (bytes.size() < kLengthBytes) {
    fail(std::to_string(bytes.size()) +
         " bytes, wanted a safetensors file (at least the 8 bytes of its header's length)");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(kLengthBytes, bytes.size()); ++i) {
    length |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  }
  const std::uint64_t most = std::min<std::uint64_t>(kMaxHeaderBytes, bytes.size() - kLengthBytes);
  if (length > most) {
    fail("byte 0: a header of " + std::to_string(length) + " bytes, wanted at most " + std::to_string(most) +
         (most == kMaxHeaderBytes ? " (100 MB)" : " (the rest of the file)"));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + kLengthBytes),
                              static_cast<std::size_t>(length));
  if (!text.starts_with('{') && !other.empty()) {
    fail("");
  }
  return text;
}

/// The tensors must tile the buffer: in the order of their ranges, each begins where the one before ends.
void check_ranges(const Header& header, std::uint64_t buffer_bytes, const std::string& file) {
  using Named = std::pair<const std::string, HeaderEntry>;
  std::vector<const Named*> entries;
  entries.reserve(header.tensors.size());
  for (const Named& entry : header.tensors) {
    entries.push_back(&entry);
  }
  std::ranges::sort(entries, {},
                    [](const Named* entry) { return std::pair(entry->second.begin, entry->second.end); });
  std::uint64_t position = 0;
  std::string before = "the header";
  for (const Named* entry : entries) {
    const auto& [name, tensor] = *entry;
    const std::string range =
        "data_offsets [" + std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) + "]";
    if (tensor.end > buffer_bytes) {
      throw Error(file + ": tensor \"" + name + "\": " + range + " end outside the file's " +
                  std::to_string(buffer_bytes) + " bytes of data");
    }
    if (tensor.begin != position) {
      throw Error(file + ": tensor \"" + name + "\": " + range +
                  (tensor.begin < position ? " overlap " : " leave a hole after ") + before +
                  ", which ends at " + std::to_string(position));
    }
    position = tensor.end;
    before = "tensor \"" + name + "\"";
  }
  if (position != buffer_bytes) {
    throw Error(file + ": " + std::to_string(buffer_bytes) + " bytes of data, wanted " +
                std::to_string(position) + ": the last tensor ends there");
  }
}

}  // namespace

std::int64_t TensorView::numel() const { return checked_numel(shape).value_or(0); }

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto state = std::make_unique<State>(path);
  const std::string file = path.string();
  const std::span<const std::byte> bytes = state->mapping.bytes();
  const std::string_view text = header_text(bytes, file);
  Header header = parse_header(text, file);
  const std::uint64_t data_begin = kLengthBytes + text.size();
  check_ranges(header, bytes.size() - data_begin, file);
  for (auto& [name, entry] : header.tensors) {
    TensorView view;
    view.dtype = std::move(entry.dtype);
    view.shape = std::move(entry.shape);
    view.offset = data_begin + entry.begin;
    view.data = bytes.subspan(static_cast<std::size_t>(view.offset),
                              static_cast<std::size_t>(entry.end - entry.begin));
    state->tensors.emplace_hint(state->tensors.end(), name, std::move(view));
  }
  state->metadata = std::move(header.metadata);
  return SafetensorsFile(std::move(state));
}

SafetensorsFile::SafetensorsFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::filesystem::path& SafetensorsFile::path() const { return state_->path; }
std::uint64_t SafetensorsFile::size() const { return state_->mapping.bytes().size(); }
const std::map<std::string, TensorView, std::less<>>& SafetensorsFile::tensors() const {
  return state_->tensors;
}
const std::map<std::string, std::string, std::less<>>& SafetensorsFile::metadata() const {
  return state_->metadata;
}
bool SafetensorsFile::contains(std::string_view name) const { return state_->tensors.contains(name); }

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const auto found = state_->tensors.find(name);
  if (found == state_->tensors.end()) {
    throw Error(state_->path.string() + ": no tensor \"" + std::string(name) + "\" among its " +
                std::to_string(state_->tensors.size()));
  }
  return found->second;
}

}  // namespace trit::io
