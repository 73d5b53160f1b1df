// SPDX-License-Identifier: MIT
//
// Tensors by name: those of a module, in a file that another process reads, and compared.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace trit::test {

using Tensors = std::map<std::string, torch::Tensor>;

inline Tensors parameters_of(const torch::nn::Module& module) {
  Tensors result;
  for (const auto& item : module.named_parameters()) {
    result[item.key()] = item.value().detach().clone();
  }
  return result;
}

inline Tensors gradients_of(const torch::nn::Module& module) {
  Tensors result;
  for (const auto& item : module.named_parameters()) {
    result[item.key()] = item.value().grad().clone();
  }
  return result;
}

inline void write(const std::filesystem::path& path, const Tensors& tensors) {
  torch::serialize::OutputArchive archive;
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    archive.write(std::to_string(names.size()), tensor);
    names.push_back(name);
  }
  archive.write("names", torch::IValue(names));
  archive.save_to(path.string());
}

inline Tensors read(const std::filesystem::path& path) {
  torch::serialize::InputArchive archive;
  archive.load_from(path.string());
  torch::IValue names;
  archive.read("names", names);
  Tensors result;
  for (std::size_t i = 0; i < names.toListRef().size(); ++i) {
    archive.read(std::to_string(i), result[names.toListRef()[i].toStringRef()]);
  }
  return result;
}

inline void expect_equal(const Tensors& found, const Tensors& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(torch::equal(found.at(name), tensor))
        << name << ": largest difference " << (found.at(name) - tensor).abs().max().item<double>();
  }
}

/// As expect_equal, for results of the same formulas in loops of other lengths: the last element of a vector
/// loop may round differently, and a code that flips with it moves its neighbours by a step or two.
inline void expect_nearly_equal(const Tensors& found, const Tensors& wanted, double equal_share) {
  ASSERT_EQ(found.size(), wanted.size());
  std::int64_t equal = 0;
  std::int64_t all = 0;
  for (const auto& [name, tensor] : wanted) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(torch::allclose(found.at(name), tensor, 0, 2e-2)) << name;
    equal += found.at(name).eq(tensor).sum().item<std::int64_t>();
    all += tensor.numel();
  }
  EXPECT_GE(static_cast<double>(equal), equal_share * static_cast<double>(all));
}

}  // namespace trit::test
