// SPDX-License-Identifier: MIT
//
// A GGUF model in one file, or split into parts as llama.cpp's llama-gguf-split does:
//
//   NAME-00001-of-00003.gguf     the keys of the model, split.no = 0, split.count = 3, split.tensors.count
//   NAME-00002-of-00003.gguf     split.no = 1, ...; as a rule no other keys
//
// Each part is a GGUF file with some of the tensors. The parts lie in one folder.
#pragma once

#include <deque>
#include <filesystem>

#include "io/gguf.h"
#include "io/mapped_file.h"

namespace trit::io::gguf {

struct Part {
  std::filesystem::path path;
  MappedFile file;
  Header header;  // its names and values refer to `file`

  /// `check_pairs` as of parse_header(); it may throw Error.
  template <typename Check>
  Part(const std::filesystem::path& from, const HeaderDefaults& defaults, const Check& check_pairs)
      : path(from), file(from), header(parse_header(file.bytes(), from.string(), defaults, check_pairs)) {}
};

/// The file, and the parts beside it if it is the first of several. Throws trit::Error, naming the files, for
/// a later part, a missing one, and parts that do not belong together. `block_format` as in OpenOptions.
std::deque<Part> open_parts(const std::filesystem::path& path, std::string_view block_format);

/// Whether a key says how a model is split; such a key says nothing of a model in one file.
inline bool is_split_key(std::string_view key) { return key.starts_with("split."); }

}  // namespace trit::io::gguf
