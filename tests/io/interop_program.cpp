// SPDX-License-Identifier: MIT
//
// The C++ half of interop_test.py: writes known files, and prints what the reader found in one.
#include <array>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

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

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc == 3 ? argv[1] : "";
  try {
    if (command == "write") {
      write(argv[2]);
    } else if (command == "write-plain") {
      write_plain(argv[2]);
    } else if (command == "list") {
      list(argv[2]);
    } else {
      std::cerr << "usage: interop_program write|write-plain|list FILE\n";
      return 2;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
