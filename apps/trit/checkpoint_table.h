// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "layer_table.h"
#include "trit/io.h"

namespace trit::cli {

/// The rows of `trit info` for a file of any format. Only its headers are read; with `with_codes` also all
/// codes, and the scales stored among them (GGUF).
std::vector<LayerRow> describe(const io::Checkpoint& checkpoint, bool with_codes);

}  // namespace trit::cli
