// SPDX-License-Identifier: MIT
//
// The C++ module's side of test_cpp_archive.py: state dicts from C++ to Python and back.
//
//   cpp_archive write FILE            torch::save of a BitLinear, its "x" and "y" in FILE.x and FILE.y
//   cpp_archive read FILE X Y         loads FILE, which Python wrote, and writes what the layer gives for X to Y
#include <iostream>
#include <string>

#include "trit/torch.h"

int main(int argc, char** argv) try {
  const std::string mode = argc > 2 ? argv[1] : "";
  trit::nn::BitLinear layer(trit::nn::BitLinearOptions(30, 7).scale(trit::ScaleGranularity::row));
  if (mode == "write") {
    const std::string file = argv[2];
    torch::nn::init::uniform_(layer->norm->weight, 0.5, 1.5);
    const torch::Tensor x = torch::randn({5, 30});
    torch::save(layer, file);
    torch::save(x, file + ".x");
    torch::save(layer(x).detach(), file + ".y");
    return 0;
  }
  if (mode == "read" && argc == 5) {
    torch::Tensor x;
    torch::load(layer, argv[2]);
    torch::load(x, argv[3]);
    torch::save(layer(x).detach(), argv[4]);
    return 0;
  }
  std::cerr << "usage: cpp_archive write FILE | read FILE X Y\n";
  return 2;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
