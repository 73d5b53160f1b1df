// SPDX-License-Identifier: MIT
//
// Recognises files that are not models, for the error messages of all readers.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace trit::io {

/// What the first bytes of a file say, "a Git LFS pointer, not the model itself; run `git lfs pull`"; empty
/// for everything that is not recognised. GGUF is recognised too, safetensors is not: call this after a
/// reader has refused the file.
std::string foreign_file(std::span<const std::byte> bytes);

}  // namespace trit::io
