// SPDX-License-Identifier: MIT
//
// The C++ module's side of test_cpp_archive.py: state dicts from C++ to Python and back.
//
//   cpp_archive write FILE OUTPUT     a BitLinear by torch::save, and what it gives for input()
//   cpp_archive read FILE OUTPUT      loads FILE, which Python wrote, and writes what the layer gives for input()
#include <iostream>
#include <string>

#include "trit/torch.h"

namespace {

// [5, 30]; test_cpp_archive.py has the same.
torch::Tensor input() { return (torch::arange(150, torch::kFloat).remainder(17) - 8).reshape({5, 30}); }

}  // namespace

int main(int argc, char** argv) try {
  const std::string mode = argc == 4 ? argv[1] : "";
  trit::nn::BitLinear layer(trit::nn::BitLinearOptions(30, 7).scale(trit::ScaleGranularity::row));
  if (mode == "write") {
    torch::nn::init::uniform_(layer->norm->weight, 0.5, 1.5);
    torch::save(layer, argv[2]);
  } else if (mode == "read") {
    torch::load(layer, argv[2]);
  } else {
    std::cerr << "usage: cpp_archive write|read FILE OUTPUT\n";
    return 2;
  }
  torch::save(layer(input()).detach(), argv[3]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
