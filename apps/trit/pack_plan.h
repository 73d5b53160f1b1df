// SPDX-License-Identifier: MIT
//
// What `trit pack` does with each tensor of a model, decided before anything is computed.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "trit/io.h"

namespace trit::cli {

struct PackPlan {
  std::set<std::string, std::less<>> packed;  // 2-D float matrices: to the stored form
  std::set<std::string, std::less<>>
      converted;  // their layers' bias and norm: to float32, as the stored form has it
  std::map<std::string, std::string, std::less<>> metadata;  // of the output file
};

/// Packs the 2-D float tensors that `filter` (a regular expression, ECMAScript, found anywhere in the name)
/// accepts; without a filter those named "*.weight". The input's metadata is kept; in a graph ("trit.model")
/// a "linear" node whose weight is packed becomes "bit_linear" with norm "none". Throws trit::Error if
/// nothing is left to pack, a "<name>_scale" exists already, or a packed matrix is no linear node's weight.
PackPlan plan_pack(const io::Checkpoint& source, const std::optional<std::string>& filter);

}  // namespace trit::cli
