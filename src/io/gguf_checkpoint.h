// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <memory>

#include "trit/io.h"

namespace trit::io {

/// A GGUF file (gguf.h) with TQ1_0, TQ2_0, Q2_0 or I2_S matrices.
std::unique_ptr<Checkpoint> open_gguf(const std::filesystem::path& path);

}  // namespace trit::io
