// SPDX-License-Identifier: MIT
//
// Packs the model that pack_pytorch.py has written to 2 bits a weight, and runs it without torch.
//
//   run_packed MODEL.safetensors SAMPLES.safetensors PACKED.safetensors
//
// `trit pack` and `trit run` do the same from a shell.
#include <trit/error.h>
#include <trit/io.h>
#include <trit/model.h>
#include <trit/safetensors.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace {

std::vector<float> floats(const trit::io::SafetensorsFile& file, const std::string& name) {
  const trit::io::TensorView& tensor = file.at(name);
  if (tensor.dtype != "F32") throw trit::Error(file.path().string() + ": " + name + " is not F32");
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

int run(const char* model_file, const char* samples_file, const char* packed_file) {
  const auto source = trit::io::open_checkpoint(model_file);
  const trit::io::LinearWeights linear = trit::io::find_linear_weights(*source);
  const auto packed =
      trit::io::ternarized(*source, trit::ScaleGranularity::tensor,
                           [&](std::string_view name) { return !linear.why_not.contains(name); });
  trit::io::convert(*packed, packed_file, {.to = trit::io::Format::trit});

  const auto samples = trit::io::SafetensorsFile::open(samples_file);
  const auto x = floats(samples, "x"), expected = floats(samples, "y");
  const auto model = trit::Model::load(packed_file);
  const std::vector<float> y = model.run(x, samples.at("x").shape.front());

  float largest = 0;
  for (std::size_t i = 0; i < y.size(); ++i) largest = std::max(largest, std::abs(y[i] - expected.at(i)));
  std::printf("%ju bytes instead of %ju; %zu outputs, at most %g from PyTorch's\n",
              static_cast<std::uintmax_t>(std::filesystem::file_size(packed_file)),
              static_cast<std::uintmax_t>(std::filesystem::file_size(model_file)), y.size(), largest);
  // PyTorch divides where trit multiplies, so that a rounding to int8 may fall to the other side.
  return largest < 0.05F ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: run_packed MODEL.safetensors SAMPLES.safetensors PACKED.safetensors\n");
    return 2;
  }
  try {
    return run(argv[1], argv[2], argv[3]);
  } catch (const trit::Error& error) {
    std::fprintf(stderr, "run_packed: %s\n", error.what());
    return 1;
  }
}
