// SPDX-License-Identifier: MIT
//
// open_checkpoint: the format by the content, never by the file's name.
#include <array>
#include <cstring>

#include "io/gguf_checkpoint.h"
#include "io/mapped_file.h"
#include "io/safetensors_checkpoint.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::io {
namespace {

/// The first four bytes, or fewer.
std::string first_bytes(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), std::min<std::size_t>(4, file.bytes().size())};
}

/// What a file of a format that is not read is called.
const char* foreign_format(const std::string& magic) {
  using namespace std::string_view_literals;
  // The magic numbers before GGUF are little-endian integers whose letters read backwards.
  if (magic == "lmgg" || magic == "fmgg" || magic == "tjgg") {
    return "a model file of ggml from before GGUF";
  }
  if (magic == "FUGG") {
    return "GGUF with its magic reversed (a byte-swapped file)";
  }
  if (magic == "PK\x03\x04"sv) {
    return "a ZIP archive (torch.save?)";
  }
  return nullptr;
}

Format format_of(const SafetensorsFile& file) {
  if (file.metadata().contains("trit.layout")) {
    return Format::trit;
  }
  const std::filesystem::path config = file.path().parent_path() / "config.json";
  if (has_bitnet_pairs(file) || std::filesystem::exists(config)) {
    return Format::huggingface;
  }
  return has_torchao_pairs(file) ? Format::torchao : Format::safetensors;
}

bool is_folder_of_transformers(const std::filesystem::path& path) {
  return std::filesystem::is_directory(path) || path.filename() == "model.safetensors.index.json";
}

/// Whether it is a GGUF file; Error for a format that is not read.
bool is_gguf(const std::filesystem::path& path) {
  const std::string magic = first_bytes(path);
  if (const char* foreign = foreign_format(magic)) {
    throw Error(path.string() + ": " + foreign +
                ", wanted GGUF version 3, safetensors, or a folder of transformers");
  }
  return magic == "GGUF";
}

}  // namespace

Format detect_format(const std::filesystem::path& path) {
  if (is_folder_of_transformers(path)) {
    return Format::huggingface;
  }
  return is_gguf(path) ? Format::gguf : format_of(SafetensorsFile::open(path));
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path, const OpenOptions& options) {
  if (is_folder_of_transformers(path)) {
    return open_huggingface(path, options);
  }
  if (is_gguf(path)) {
    return open_gguf(path);
  }
  SafetensorsFile file = SafetensorsFile::open(path);
  switch (format_of(file)) {
    case Format::trit:
      return open_trit(std::move(file));
    case Format::huggingface:
      return open_huggingface(path, options);
    default:
      return open_plain(std::move(file));
  }
}

}  // namespace trit::io
