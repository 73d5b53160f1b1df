// SPDX-License-Identifier: MIT
#include "io/file_kind.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace trit::io {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::size_t offset;
  std::string_view bytes;
  const char* name;
};
// The magic numbers of ggml before GGUF are little-endian integers whose letters read backwards.
constexpr std::array kMagics{
    Magic{0, "version https://git-lfs.github.com/spec/"sv,
          "a Git LFS pointer, not the model itself; run `git lfs pull`"},
    Magic{0, "GGUF"sv, "a GGUF file; `trit convert FILE OUT --to trit` converts it to safetensors"},
    Magic{0, "FUGG"sv, "GGUF with its magic reversed (a byte-swapped file)"},
    Magic{0, "lmgg"sv, "a ggml model file older than GGUF"},
    Magic{0, "fmgg"sv, "a ggml model file older than GGUF"},
    Magic{0, "tjgg"sv, "a ggml model file older than GGUF"},
    Magic{0, "\x93NUMPY"sv, "a NumPy array (.npy); convert it with safetensors.numpy.save_file"},
    Magic{0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file"},
    Magic{0, "\x1f\x8b"sv, "a gzip archive; unpack it first"},
    Magic{0, "\x28\xb5\x2f\xfd"sv, "a Zstandard archive; unpack it first"},
    Magic{0,
          "\xfd"
          "7zXZ\0"sv,
          "an XZ archive; unpack it first"},
    Magic{0, "BZh"sv, "a bzip2 archive; unpack it first"},
    Magic{0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive; unpack it first"},
    Magic{257, "ustar"sv, "a tar archive; unpack it first"},
    Magic{0, "\x89PNG"sv, "a PNG image"},
    Magic{0, "\xff\xd8\xff"sv, "a JPEG image"},
    Magic{0, "%PDF"sv, "a PDF document"},
};

constexpr const char* kTorch = "a PyTorch file (torch.save); convert it with safetensors.torch.save_file";

/// A ZIP archive by the name of its first file.
std::string zip_name(std::string_view text) {
  constexpr std::size_t kHeader = 30;
  const std::size_t length = text.size() > kHeader ? static_cast<unsigned char>(text[26]) : 0;
  const std::string_view first = text.substr(std::min(kHeader, text.size()), length);
  if (first.ends_with("data.pkl") || first.ends_with("/version") || first.ends_with(".format_version")) {
    return kTorch;
  }
  return first.ends_with(".npy") ? "a NumPy archive (.npz); convert it with safetensors.numpy.save_file"
                                 : "a ZIP archive; unpack it first";
}

/// `text` without leading white space and a byte order mark, in small letters.
std::string beginning(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) {
    text.remove_prefix(3);
  }
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  std::string small(text.substr(0, 16));
  std::transform(small.begin(), small.end(), small.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return small;
}

}  // namespace

std::string foreign_file(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()),
                              std::min<std::size_t>(bytes.size(), 1024));
  if (text.empty()) {
    return "an empty file (0 bytes)";
  }
  for (const Magic& magic : kMagics) {
    if (text.size() >= magic.offset && text.substr(magic.offset).starts_with(magic.bytes)) {
      return magic.name;
    }
  }
  if (text.starts_with("PK\x03\x04")) {
    return zip_name(text);
  }
  // A pickle begins with its protocol, 2 to 5; old files of torch.save begin with one that holds a number.
  if (text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5) {
    return text.substr(2).starts_with("\x8a\x0a") ? kTorch : "a Python pickle";
  }
  const std::string start = beginning(text);
  if (start.starts_with("<!doctype html") || start.starts_with("<html")) {
    return "an HTML page, probably from a failed download";
  }
  if (start.starts_with("<?xml")) {
    return "an XML document";
  }
  return start.starts_with("{") || start.starts_with("[") ? "JSON text" : "";
}

}  // namespace trit::io
