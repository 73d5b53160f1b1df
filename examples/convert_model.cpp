// SPDX-License-Identifier: MIT
//
// Makes the linear layers of a float model ternary and writes it as a packed safetensors file and as GGUF.
//
//   convert_model IN OUT.safetensors OUT.gguf     IN: a safetensors file, or a folder of transformers
//   convert_model                                 a small model made here, in the current folder
#include <trit/error.h>
#include <trit/io.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

/// Two layers and an embedding, with random weights.
std::unique_ptr<trit::io::Checkpoint> small_model() {
  auto model = std::make_unique<trit::io::MemoryCheckpoint>();
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto add = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    for (float& value : values) value = normal(random);
    model->add(name, {rows, columns}, values);
  };
  add("embed_tokens.weight", 32, 256);
  add("layers.0.mlp.up_proj.weight", 512, 256);
  add("layers.0.mlp.down_proj.weight", 256, 512);
  return model;
}

int convert(const trit::io::Checkpoint& source, const std::filesystem::path& packed_file,
            const std::filesystem::path& gguf_file) {
  // By their names and shapes: embeddings, norms and the output layer stay float.
  const trit::io::LinearWeights linear = trit::io::find_linear_weights(source);
  const auto is_linear = [&](std::string_view name) { return !linear.why_not.contains(name); };
  const auto ternary = trit::io::ternarized(source, trit::ScaleGranularity::tensor, is_linear);

  trit::io::convert(*ternary, packed_file, {.to = trit::io::Format::trit});
  trit::io::convert(*ternary, gguf_file, {.to = trit::io::Format::gguf, .block_format = "tq2_0"});

  const auto packed = trit::io::open_checkpoint(packed_file);
  for (const trit::io::TensorInfo& tensor : packed->tensors()) {
    std::printf("%-32s %-10s %8llu bytes", std::string(tensor.name).c_str(), std::string(tensor.type).c_str(),
                static_cast<unsigned long long>(tensor.stored_bytes));
    if (tensor.kind == trit::io::TensorKind::ternary) {
      const trit::io::CodeCounts counts = trit::io::count_codes(*packed, tensor);
      std::printf(", %lld times -1, %lld times 0, %lld times +1", static_cast<long long>(counts.minus),
                  static_cast<long long>(counts.zero), static_cast<long long>(counts.plus));
    }
    std::printf("\n");
  }
  // GGUF keeps scales as float16.
  const auto gguf = trit::io::open_checkpoint(gguf_file);
  const auto differences = trit::io::diff(*packed, *gguf, {.tolerance = 1e-3});
  for (const trit::io::Difference& difference : differences) {
    std::printf("%s: %s\n", difference.name.c_str(), difference.what.c_str());
  }
  return differences.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 1 && argc != 4) {
    std::fprintf(stderr, "usage: convert_model [IN OUT.safetensors OUT.gguf]\n");
    return 2;
  }
  try {
    const auto source = argc == 1 ? small_model() : trit::io::open_checkpoint(argv[1]);
    return argc == 1 ? convert(*source, "packed.safetensors", "packed.gguf")
                     : convert(*source, argv[2], argv[3]);
  } catch (const trit::Error& error) {
    std::fprintf(stderr, "convert_model: %s\n", error.what());
    return 1;
  }
}
