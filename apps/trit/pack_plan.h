// SPDX-License-Identifier: MIT
//
// What `trit pack` does with each tensor of a model, decided before anything is computed.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "trit/io.h"

namespace trit::cli {

/// A float tensor of two dimensions or more that is not packed.
struct LeftFloat {
  std::string name;
  std::string why;  // "an embedding"
};

struct PackPlan {
  std::set<std::string, std::less<>> packed;  // 2-D float matrices: to the stored form
  std::set<std::string, std::less<>>
      converted;  // their layers' bias and norm: to float32, as the stored form has it
  std::map<std::string, std::string, std::less<>> metadata;  // of the output file
  std::vector<LeftFloat> left_float;
  bool trained_ternary = false;  // config.json says that it is a BitNet model, or the weights are -a, 0, +a
  std::string config_problem;    // why the config.json that came with the model was not used
};

/// Packs the float matrices of the linear layers. The graph of the file ("trit.model") names them; without a
/// graph, the config.json that came with the model and the names of the tensors do (io::find_linear_weights).
/// With `filter` (an ECMAScript regular expression, matched anywhere in the name): the 2-D float tensors that
/// match. The metadata is copied; in a graph, a "linear" node whose weight is packed becomes "bit_linear" with
/// norm "none". Throws trit::Error if there is nothing to pack, a "<name>_scale" already exists, or a packed
/// matrix is not the weight of a linear node.
PackPlan plan_pack(const io::Checkpoint& source, const std::optional<std::string>& filter);

/// `before` + "a.weight, b.weight and 3 more (an embedding); c (3 dimensions)"; empty if there are none.
std::string left_float_text(const std::vector<LeftFloat>& left, const std::string& before);

}  // namespace trit::cli
