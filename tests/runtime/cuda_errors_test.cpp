// SPDX-License-Identifier: MIT
//
// What the backend cuda says where something is missing. Needs a build with CUDA, no GPU.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

#include "runtime/cuda/device.h"
#include "runtime/cuda/library.h"
#include "trit/error.h"

namespace trit::test {
namespace {

template <typename Function>
std::string error_of(const Function& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(CudaLibrary, AMissingOneIsNamedWithWhatWasTried) {
  constexpr std::array kNames = {"libnotthere.so.9", "libnotthere.so.8"};
  const std::string text = error_of([&] { runtime::gpu::Library(kNames, "Get it from there."); });
  for (const char* part : {"'cuda'", "cannot load libnotthere.so.9", "libnotthere.so.8", "LD_LIBRARY_PATH",
                           "Get it from there."}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(CudaLibrary, AMissingFunctionIsNamed) {
  constexpr std::array kNames = {"libnotthere.so.9", "libm.so.6"};
  const runtime::gpu::Library library(kNames, "");
  using Function = double (*)(double);
  EXPECT_EQ(library.load<Function>("cos")(0), 1);
  EXPECT_NE(error_of([&] { library.load<Function>("cosine"); }).find("libm.so.6 has no function cosine"),
            std::string::npos);
}

TEST(CudaDevice, NoGpuIsAnErrorThatSaysWhatWorks) {
  setenv("CUDA_VISIBLE_DEVICES", "", 1);  // before this process first asks the driver
  const std::string text = error_of([] { runtime::gpu::find_gpu(); });
  EXPECT_NE(text.find("backend 'cuda'"), std::string::npos) << text;
  EXPECT_NE(text.find("this machine has: scalar"), std::string::npos) << text;
}

}  // namespace
}  // namespace trit::test
