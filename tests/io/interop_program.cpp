// SPDX-License-Identifier: MIT
//
// The C++ half of interop_test.py and interop_formats_test.py: writes known files, prints what the reader
// found in one, and runs ternary layers.
#include <array>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "trit/io.h"
#include "trit/quantize.h"
#include "trit/safetensors.h"

namespace {

using trit::io::SafetensorsFile;
using trit::io::save_safetensors;
using trit::io::TensorToWrite;

void write(const char* path) {
  const std::array<float, 6> f32{0, 0.25F, 0.5F, 0.75F, 1, 1.25F};
  const std::array<std::uint8_t, 3> u8{1, 2, 255};
  const std::array<std::int64_t, 1> scalar{-7};
  const std::array<std::int16_t, 2> i16{-1, 1};
  const std::vector<TensorToWrite> tensors{{"f32", "F32", {2, 3}, std::as_bytes(std::span(f32))},
                                           {"u8", "U8", {3}, std::as_bytes(std::span(u8))},
                                           {"scalar", "I64", {}, std::as_bytes(std::span(scalar))},
                                           {"empty", "F16", {0, 4}, {}},
                                           {"na\"me é", "I16", {2}, std::as_bytes(std::span(i16))}};
  save_safetensors(path, tensors, {{"key", "välue\n"}, {"", "empty key"}});
}

void write_plain(const char* path) {
  const std::array<float, 2> b{1, 2};
  const std::array<float, 1> a{0.5F};
  const std::vector<TensorToWrite> tensors{{"b", "F32", {2}, std::as_bytes(std::span(b))},
                                           {"a", "F32", {1, 1}, std::as_bytes(std::span(a))}};
  save_safetensors(path, tensors, {});
}

void list(const char* path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::cout << nlohmann::json{{"name", "__metadata__"}, {"value", file.metadata()}}.dump() << '\n';
  for (const auto& [name, tensor] : file.tensors()) {
    std::string hex;
    for (const std::byte byte : tensor.data) {
      std::array<char, 3> digits{};
      std::snprintf(digits.data(), digits.size(), "%02x", std::to_integer<unsigned>(byte));
      hex += digits.data();
    }
    std::cout << nlohmann::json{{"name", name},
                                {"dtype", tensor.dtype},
                                {"shape", tensor.shape},
                                {"data", hex}}
                     .dump()
              << '\n';
  }
}

/// For each "<layer>.x" [M, K] of `inputs`: "<layer>.q", its int8 activations, and "<layer>.y", the output of
/// the ternary layer of `model`, with the norm "<layer>.norm.weight" (eps 1e-6) in front where `inputs` has
/// one.
void linear(const char* model, const char* inputs, const char* outputs) {
  const auto checkpoint = trit::io::open_checkpoint(model);
  const SafetensorsFile file = SafetensorsFile::open(inputs);
  std::vector<std::vector<std::byte>> storage;
  storage.reserve(2 * file.tensors().size());
  std::vector<TensorToWrite> written;
  const auto add = [&](const std::string& name, const char* dtype, std::int64_t columns, std::int64_t rows,
                       const auto& values) {
    const auto bytes = std::as_bytes(std::span(values));
    storage.emplace_back(bytes.begin(), bytes.end());
    written.push_back({name, dtype, {rows, columns}, storage.back()});
  };
  for (const auto& [name, tensor] : file.tensors()) {
    if (!name.ends_with(".x")) {
      continue;
    }
    const std::string layer = name.substr(0, name.size() - 2);
    const trit::io::TensorInfo& weight = *checkpoint->find(layer + ".weight");
    trit::TernaryMatrix matrix{weight.shape[0], weight.shape[1], {}, checkpoint->scale(weight)};
    matrix.codes.resize(static_cast<std::size_t>(weight.shape[0] * trit::packed_row_bytes(weight.shape[1])));
    checkpoint->read_codes(weight, 0, weight.shape[0], matrix.codes);
    const auto in = static_cast<std::size_t>(matrix.in_features);
    const auto out = static_cast<std::size_t>(matrix.out_features);
    std::vector<float> x(static_cast<std::size_t>(tensor.numel()));
    std::memcpy(x.data(), tensor.data.data(), tensor.data.size());
    std::vector<float> gain;
    if (file.contains(layer + ".norm.weight")) {
      gain.resize(in);
      std::memcpy(gain.data(), file.at(layer + ".norm.weight").data.data(), in * sizeof(float));
    }
    const trit::Norm norm = gain.empty() ? trit::Norm::none : trit::Norm::rms;
    constexpr float kEpsilon = 1e-6F;
    const std::size_t rows = x.size() / in;
    std::vector<std::int8_t> q(x.size());
    std::vector<float> y(rows * out);
    for (std::size_t row = 0; row < rows; ++row) {
      const auto x_row = std::span<const float>(x).subspan(row * in, in);
      trit::norm_quant_row(x_row, norm, gain, kEpsilon, std::span(q).subspan(row * in, in));
      trit::bit_linear_row(x_row, matrix.view(), norm, gain, kEpsilon, {},
                           std::span(y).subspan(row * out, out));
    }
    const auto count = static_cast<std::int64_t>(rows);
    add(layer + ".q", "I8", matrix.in_features, count, q);
    add(layer + ".y", "F32", matrix.out_features, count, y);
  }
  save_safetensors(outputs, written, {});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc >= 3 ? argv[1] : "";
  try {
    if (command == "write") {
      write(argv[2]);
    } else if (command == "write-plain") {
      write_plain(argv[2]);
    } else if (command == "list") {
      list(argv[2]);
    } else if (command == "linear" && argc == 5) {
      linear(argv[2], argv[3], argv[4]);
    } else {
      std::cerr << "usage: interop_program write|write-plain|list FILE, or linear MODEL INPUTS OUTPUTS\n";
      return 2;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
