// SPDX-License-Identifier: MIT
//
// open_checkpoint: finds the format from the content, never from the file's name.
#include <string_view>

#include "io/file_kind.h"
#include "io/gguf_checkpoint.h"
#include "io/huggingface_files.h"
#include "io/mapped_file.h"
#include "io/safetensors_checkpoint.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::io {
namespace {

/// Whether it is a GGUF file. Error for a file that is neither that nor safetensors.
bool is_gguf(const std::filesystem::path& path) {
  const MappedFile file(path);
  constexpr std::string_view kMagic = "GGUF";
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (text.starts_with(kMagic)) {
    return true;
  }
  constexpr std::size_t kHeader = 8;  // of safetensors: a length, then JSON
  const bool safetensors = text.size() > kHeader && text[kHeader] == '{';
  if (const std::string other = foreign_file(file.bytes()); !safetensors && !other.empty()) {
    throw Error(path.string() + ": " + other +
                "; wanted GGUF version 3, safetensors, or a folder of transformers");
  }
  return false;
}

Format format_of(const SafetensorsFile& file) {
  if (file.metadata().contains("trit.layout")) {
    return Format::trit;
  }
  if (has_bitnet_pairs(file)) {
    return Format::huggingface;
  }
  if (has_torchao_pairs(file)) {
    return Format::torchao;
  }
  std::error_code ignored;
  return std::filesystem::exists(file.path().parent_path() / "config.json", ignored) ? Format::huggingface
                                                                                     : Format::safetensors;
}

}  // namespace

Format detect_format(const std::filesystem::path& path) {
  if (names_folder_of_transformers(path)) {
    return Format::huggingface;
  }
  if (is_gguf(path)) {
    return Format::gguf;
  }
  refuse_lone_shard(path);
  return format_of(SafetensorsFile::open(path));
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path, const OpenOptions& options) {
  if (names_folder_of_transformers(path)) {
    return open_huggingface(path, options);
  }
  if (is_gguf(path)) {
    return open_gguf(path, options.block_format);
  }
  refuse_lone_shard(path);
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
