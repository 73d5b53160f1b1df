// SPDX-License-Identifier: MIT
//
// write_seeds FOLDER: a small valid file of every format, in FOLDER/<target>/, for the fuzzers to start from.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "trit/error.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace {

namespace fs = std::filesystem;
using namespace trit;

std::string read_bytes(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}
void write_bytes(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

io::MemoryCheckpoint& fill(io::MemoryCheckpoint& model, bool row_scale) {
  TernaryMatrix matrix{4, 256, std::vector<std::uint8_t>(4 * 64, 0x34), {0.5F}};
  if (row_scale) {
    matrix.scale = {0.5F, 0.25F, 1, 2};
  }
  model.add("fc.weight", matrix);
  model.add("fc.bias", {4}, std::vector<float>(4, 1));
  model.add("half", "BF16", {2, 1}, std::vector<std::byte>(4, std::byte{0x3f}));
  model.set_metadata("trit.model",
                     R"({"nodes":[{"op":"input"},{"op":"bit_linear","name":"fc","norm":"none"}]})");
  return model;
}

/// The folder's files as fuzz_huggingface cuts them.
std::string joined(const fs::path& folder) {
  std::string config = read_bytes(folder / "config.json");
  std::string index = read_bytes(folder / "model.safetensors.index.json");
  const std::string first = read_bytes(folder / "model-00001-of-00002.safetensors");
  const std::string second = read_bytes(folder / "model-00002-of-00002.safetensors");
  for (const auto& [from, to] :
       {std::pair("model-00001-of-00002", "a"), std::pair("model-00002-of-00002", "b")}) {
    for (std::size_t at = index.find(from); at != std::string::npos; at = index.find(from)) {
      index.replace(at, std::string(from).size(), to);
    }
  }
  std::string bytes;
  for (const std::string* part : {&config, &index, &first}) {
    bytes += static_cast<char>(part->size() & 0xffU);
    bytes += static_cast<char>(part->size() >> 8);
  }
  return bytes + config + index + first + second;
}

void write_torchao(const fs::path& path) {
  const std::vector<std::uint8_t> codes(12, 0x4c);
  const std::vector<float> scale{0.5F};
  fs::create_directories(path.parent_path());
  io::save_safetensors(
      path,
      std::vector<io::TensorToWrite>{{"w.int_data", "I8", {3, 4}, std::as_bytes(std::span(codes))},
                                     {"w.scale", "F32", {}, std::as_bytes(std::span(scale))}},
      {});
}

void write_seeds(const fs::path& root) {
  for (const bool row_scale : {false, true}) {
    io::MemoryCheckpoint model;
    fill(model, row_scale);
    const std::string name = row_scale ? "row" : "tensor";
    fs::create_directories(root / "safetensors");
    fs::create_directories(root / "gguf");
    io::convert(model, root / "safetensors" / name, {});
    for (const char* type : {"tq1_0", "tq2_0", "q2_0"}) {
      io::ConvertOptions options;
      options.to = io::Format::gguf;
      options.block_format = type;
      io::convert(model, root / "gguf" / (name + "-" + type), options);
    }
  }
  write_torchao(root / "safetensors" / "torchao");
  io::MemoryCheckpoint model;
  fill(model, false);
  for (const auto convention : {io::ScaleConvention::multiply, io::ScaleConvention::divide}) {
    const std::string name = convention == io::ScaleConvention::multiply ? "multiply" : "divide";
    io::ConvertOptions options;
    options.to = io::Format::huggingface;
    options.scale_convention = convention;
    options.shard_bytes = 1024;
    io::convert(model, root / "folder", options);
    write_bytes(root / "huggingface" / name, joined(root / "folder"));
    write_bytes(root / "json" / name, std::string(1, '\0') + read_bytes(root / "folder" / "config.json"));
    fs::remove_all(root / "folder");
    options.shard_bytes = 0;
    io::convert(model, root / "folder", options);
    write_bytes(root / "safetensors" / name, read_bytes(root / "folder" / "model.safetensors"));
    fs::remove_all(root / "folder");
  }
  write_bytes(root / "json" / "map", std::string(1, '\1') + R"json({"a\\.(.*)": "b.$1", "c": null})json");
  write_bytes(root / "json" / "graph", std::string(1, '\2') + model.metadata().find("trit.model")->second);
  for (char kind = 0; kind < 6; ++kind) {
    write_bytes(root / "round_trip" / std::to_string(kind), std::string(1, kind) + "\3\5\1 codes and scales");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: write_seeds FOLDER\n", stderr);
    return 2;
  }
  try {
    write_seeds(argv[1]);
  } catch (const Error& error) {
    std::fprintf(stderr, "write_seeds: %s\n", error.what());
    return 1;
  }
  return 0;
}
