// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <memory>

#include "trit/io.h"

namespace trit::io {

/// A GGUF file (gguf.h) with matrices in ternary blocks (codecs/blocks.h) or I2_S. `block_format` as in
/// OpenOptions.
std::unique_ptr<Checkpoint> open_gguf(const std::filesystem::path& path, std::string_view block_format);

}  // namespace trit::io
