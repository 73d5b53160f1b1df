// SPDX-License-Identifier: MIT
#include "io/tensor_names.h"

#include <cstdint>

#include "trit/error.h"

namespace trit::io {
namespace {

constexpr std::size_t kMaxName = 1024;

/// Whether a part of the name between slashes is "..".
bool has_parent_part(std::string_view name) {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find_first_of("/\\", begin), name.size());
    if (name.substr(begin, end - begin) == "..") {
      return true;
    }
    begin = end + 1;
  }
  return false;
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t at) { return static_cast<std::uint8_t>(text[at]); };
    const std::uint8_t lead = byte(i);
    const std::size_t length = lead < 0x80   ? 1
                               : lead < 0xc2 ? 0
                               : lead < 0xe0 ? 2
                               : lead < 0xf0 ? 3
                               : lead < 0xf5 ? 4
                                             : 0;
    if (length == 0 || text.size() - i < length) {
      return false;
    }
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0U) != 0x80U) {
        return false;
      }
    }
    // Overlong forms, surrogates, and what lies beyond U+10FFFF.
    const std::uint8_t second = length > 1 ? byte(i + 1) : 0;
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += length;
  }
  return true;
}

void check_tensor_name(std::string_view name, const std::string& file) {
  const auto fail = [&](const std::string& what) {
    throw Error(file + ": tensor name " + quoted_name(name) + " " + what);
  };
  if (name.empty()) {
    fail("is empty, wanted at least one character");
  }
  if (name.size() > kMaxName) {
    fail("has " + std::to_string(name.size()) + " bytes, wanted at most " + std::to_string(kMaxName));
  }
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(name[i]);
    if (byte < 0x20 || byte == 0x7f) {
      fail("has " + (byte == 0 ? std::string("a NUL") : "the control character " + std::to_string(byte)) +
           " at byte " + std::to_string(i) + ", wanted printable characters");
    }
  }
  if (!is_utf8(name)) {
    fail("is not valid UTF-8");
  }
  if (has_parent_part(name)) {
    fail("has the part \"..\", wanted none: programs use tensor names as file names");
  }
}

std::string quoted_name(std::string_view name) {
  constexpr std::size_t kQuoted = 100;
  std::string text = "\"";
  for (const char c : name.substr(0, kQuoted)) {
    const auto byte = static_cast<std::uint8_t>(c);
    text += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return text + (name.size() > kQuoted ? "...\"" : "\"");
}

std::string_view without_ending(std::string_view name, std::string_view ending) {
  return name.size() > ending.size() && name.ends_with(ending) ? name.substr(0, name.size() - ending.size())
                                                               : std::string_view();
}

}  // namespace trit::io
