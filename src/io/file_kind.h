// SPDX-License-Identifier: MIT
//
// What a file is that is no model: for the messages of all readers.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace trit::io {

/// "a Git LFS pointer, not the model itself; run `git lfs pull`": by the first bytes; empty for what is not
/// recognised. Of files that safetensors and GGUF readers take, only GGUF has a name here: ask after a reader
/// has failed.
std::string foreign_file(std::span<const std::byte> bytes);

}  // namespace trit::io
