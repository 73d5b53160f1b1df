// SPDX-License-Identifier: MIT
//
// A package of AOTInductor in a program without Python: test_compile.py.
//
//   aoti_run LIBRARY PACKAGE FEATURES < INPUT > OUTPUT     float32 rows of FEATURES in, rows out
//
// LIBRARY is libtrit_torch_stable.so, which registers the operators that the package calls.
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <iostream>
#include <iterator>
#include <string>

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::cerr << "usage: aoti_run LIBRARY PACKAGE FEATURES < INPUT > OUTPUT\n";
    return 2;
  }
  if (dlopen(argv[1], RTLD_NOW) == nullptr) {
    std::cerr << dlerror() << '\n';
    return 1;
  }
  torch::inductor::AOTIModelPackageLoader package(argv[2]);
  std::string bytes{std::istreambuf_iterator<char>(std::cin), {}};
  const torch::Tensor x =
      torch::from_blob(bytes.data(), {static_cast<std::int64_t>(bytes.size() / sizeof(float))});
  const torch::InferenceMode inference;
  const torch::Tensor y = package.run({x.reshape({-1, std::stoll(argv[3])}).clone()}).at(0).contiguous();
  std::cout.write(static_cast<const char*>(y.const_data_ptr()), static_cast<std::streamsize>(y.nbytes()));
  return std::cout.good() ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
