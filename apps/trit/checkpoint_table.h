// SPDX-License-Identifier: MIT
//
// Makes the rows of `trit info`.
#pragma once

#include <vector>

#include "layer_table.h"
#include "trit/io.h"
#include "trit/model.h"
#include "trit/safetensors.h"

namespace trit::cli {

/// The tensors of a file of any format. Only its headers are read; with `with_codes` also all codes, which are
/// checked, and the scales stored among them (GGUF).
std::vector<LayerRow> describe(const io::Checkpoint& checkpoint, bool with_codes);

/// The layers of `model`, which was loaded from the file of `checkpoint`.
std::vector<LayerRow> describe(const Model& model, const io::Checkpoint& checkpoint, bool with_codes);

/// The tensors of a safetensors file with nothing packed, whatever their names.
std::vector<LayerRow> describe(const io::SafetensorsFile& file);

}  // namespace trit::cli
