// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "layer_table.h"
#include "trit/io.h"

namespace trit::cli {

/// The rows of `trit info` for a file of any format, from its headers alone; with `with_codes` all of the
/// codes are read, and the scales that lie among them (GGUF).
std::vector<LayerRow> describe(const io::Checkpoint& checkpoint, bool with_codes);

}  // namespace trit::cli
