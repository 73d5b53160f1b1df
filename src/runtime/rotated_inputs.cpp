// SPDX-License-Identifier: MIT
#include "runtime/rotated_inputs.h"

#include <array>

#include "io/rotation.h"
#include "trit/error.h"

namespace trit::runtime {

ModelRotation::ModelRotation(const io::Metadata& metadata, std::string file)
    : file_(std::move(file)), rotation_(io::rotation_of(metadata, file_)) {
  if (!rotation_) {
    return;
  }
  if (rotation_->grouped_v_heads) {
    throw Error(file_ +
                ": \"prism.hadamard.gdn_v_grouped\" is true, wanted false: no operator of a model file has "
                "such heads");
  }
  left_[0].insert(rotation_->weights.begin(), rotation_->weights.end());
  left_[1].insert(rotation_->look_ups.begin(), rotation_->look_ups.end());
}

RotatedInputs ModelRotation::take(Rotated list, const std::string& name, std::int64_t width,
                                  const std::string& what) {
  if (!rotation_ || left_[static_cast<std::size_t>(list)].erase(name) == 0) {
    return {};
  }
  io::check_width(*rotation_, name, width, what);
  const auto signs = rotation_->signs.find(width);
  return {rotation_->block, signs == rotation_->signs.end() ? std::vector<std::int8_t>{} : signs->second};
}

void ModelRotation::check_all_taken() const {
  constexpr std::array kLists{std::pair{"weight_names", "bit_linear"},
                              std::pair{"inverse_weight_names", "embedding"}};
  for (std::size_t i = 0; i < kLists.size(); ++i) {
    if (!left_[i].empty()) {
      throw Error(file_ + ": \"prism.hadamard." + kLists[i].first + "\" names \"" + *left_[i].begin() +
                  "\", wanted the weight of a node \"" + kLists[i].second + "\"");
    }
  }
}

}  // namespace trit::runtime
