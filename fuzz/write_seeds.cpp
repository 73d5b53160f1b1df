// SPDX-License-Identifier: MIT
//
// write_seeds FOLDER: a small valid file of every format, in FOLDER/<target>/, for the fuzzers to start from.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "io/gguf_builder.h"
#include "trit/error.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace {

namespace fs = std::filesystem;
using namespace trit;

std::string read_bytes(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    throw Error(path.string() + ": cannot be read");
  }
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}
void write_bytes(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

io::MemoryCheckpoint& fill(io::MemoryCheckpoint& model, std::string_view scales) {
  TernaryMatrix matrix{4, 256, std::vector<std::uint8_t>(4 * 64, 0x34), {0.5F}};
  if (scales == "row") {
    matrix.scale = {0.5F, 0.25F, 1, 2};
  } else if (scales == "group") {
    matrix.scale = {0.5F, 0.25F, 1, 2, 3, 4, 5, 6};
    matrix.group = 128;
  }
  model.add("fc.weight", matrix);
  model.add("fc.bias", {4}, std::vector<float>(4, 1));
  model.add("half", "BF16", {2, 1}, std::vector<std::byte>(4, std::byte{0x3f}));
  model.set_metadata("trit.model",
                     R"({"nodes":[{"op":"input"},{"op":"bit_linear","name":"fc","norm":"none"}]})");
  return model;
}

/// A number of the lengths that the targets cut their input by: u16, little endian.
std::string length_bytes(std::size_t length) {
  return {static_cast<char>(length & 0xffU), static_cast<char>(length >> 8)};
}

/// A safetensors file as framed_safetensors() takes it.
std::string framed(const fs::path& path) {
  const std::string bytes = read_bytes(path);
  std::size_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return length_bytes(length) + bytes.substr(8);
}

/// The folder's files as fuzz_huggingface cuts them.
std::string joined(const fs::path& folder, bool shards) {
  const std::string config = read_bytes(folder / "config.json");
  std::string index = shards ? read_bytes(folder / "model.safetensors.index.json") : "";
  const std::string first =
      framed(folder / (shards ? "model-00001-of-00002.safetensors" : "model.safetensors"));
  const std::string second = shards ? framed(folder / "model-00002-of-00002.safetensors") : "";
  for (const auto& [from, to] :
       {std::pair("model-00001-of-00002", "a"), std::pair("model-00002-of-00002", "b")}) {
    for (std::size_t at = index.find(from); at != std::string::npos; at = index.find(from)) {
      index.replace(at, std::string(from).size(), to);
    }
  }
  std::string bytes;
  for (const std::string* part : {&config, &std::as_const(index), &first}) {
    bytes += length_bytes(part->size());
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

/// GGUF that the writer does not make: two parts, a scalar, an empty tensor, a type that is not decoded, and
/// a llama whose rows are reordered.
void write_gguf(const fs::path& folder) {
  using test::GgufBuilder;
  const auto part = [](std::uint16_t number) {
    GgufBuilder file;
    file.architecture("bitnet").pair("split.no", 2, GgufBuilder::number(number));
    file.pair("split.count", 2, GgufBuilder::number(std::uint16_t{2}));
    file.pair("split.tensors.count", 5, GgufBuilder::number(std::int32_t{2}));
    file.tensor({"w" + std::to_string(number), {128}, 36, 0});
    file.data = std::string(64, '\x3f');
    return file.build();
  };
  write_bytes(folder / "parts", part(0) + part(1));
  GgufBuilder kinds;
  kinds.architecture("trit").tensor({"scalar", {}, 0, 0}).tensor({"empty", {4, 0}, 0, 32});
  kinds.tensor({"blocks", {32, 1}, 8, 32}).tensor({"experts", {256, 1, 2}, 35, 96});
  kinds.data = std::string(96 + 132, '\x15');
  write_bytes(folder / "kinds", kinds.build());
  GgufBuilder llama;
  llama.architecture("llama");
  for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                          "attention.head_count", "attention.head_count_kv"}) {
    llama.pair("llama." + std::string(key), 4, GgufBuilder::number(std::uint32_t{key[0] == 'a' ? 2U : 64U}));
  }
  llama.tensor({"blk.0.attn_q.weight", {64, 4}, 42, 0}).tensor({"blk.0.attn_k.bias", {4}, 0, 96});
  llama.data = std::string(96 + 16, '\x14');
  write_bytes(folder / "llama", llama.build());
}

/// Group scales: the stored form, the block types, floats, and the keys of rotated weights.
void write_groups(const fs::path& root) {
  io::MemoryCheckpoint model;
  fill(model, "group");
  io::convert(model, root / "safetensors" / "group", {});
  write_bytes(root / "trit" / "group", framed(root / "safetensors" / "group"));
  io::ConvertOptions options;
  options.to = io::Format::safetensors;
  io::convert(model, root / "safetensors" / "values", options);
  for (const char group : {'\0', '\2', '\4'}) {
    write_bytes(root / "values" / std::to_string(group),
                std::string(1, group) + framed(root / "safetensors" / "values"));
  }
  options.to = io::Format::gguf;
  for (const char* type : {"q2_0", "pq2_0", "ptq1_0"}) {
    options.block_format = type;
    io::convert(model, root / "gguf" / (std::string("group-") + type), options);
  }
  for (char format = 0; format < 5; ++format) {
    write_bytes(root / "blocks" / std::to_string(format),
                std::string(1, format) + "\2\2" + std::string(120, '\x3c'));
  }
  using test::GgufBuilder;
  const auto names = [](const std::string& name) {
    return GgufBuilder::number(std::uint32_t{8}) + GgufBuilder::number(std::uint64_t{1}) +
           GgufBuilder::text(name);
  };
  GgufBuilder rotated;
  rotated.architecture("qwen35").pair("prism.hadamard.version", 4, GgufBuilder::number(std::uint32_t{1}));
  rotated.pair("prism.hadamard.block_size", 4, GgufBuilder::number(std::uint32_t{512}));
  rotated.pair("prism.hadamard.transform", 8, GgufBuilder::text("normalized-sylvester-walsh-hadamard"));
  rotated.pair("prism.hadamard.axis", 8, GgufBuilder::text("input-last-dimension"));
  rotated.pair("prism.hadamard.sign_mode", 8, GgufBuilder::text("explicit"));
  rotated.pair("prism.hadamard.sign_widths", 9,
               GgufBuilder::number(std::uint32_t{5}) + GgufBuilder::number(std::uint64_t{1}) +
                   GgufBuilder::number(512));
  rotated.pair("prism.hadamard.sign_values", 9,
               GgufBuilder::number(std::uint32_t{1}) + GgufBuilder::number(std::uint64_t{512}) +
                   std::string(512, '\1'));
  rotated.pair("prism.hadamard.weight_names", 9, names("w.weight"));
  rotated.pair("prism.hadamard.inverse_weight_names", 9, names("w.weight"));
  rotated.pair("prism.hadamard.gdn_v_grouped", 7, std::string(1, '\1'));
  rotated.tensor({"w.weight", {512, 1}, 143, 0});
  rotated.data = std::string(128, '\x3c');
  write_bytes(root / "gguf" / "rotated", rotated.build());
  // Type 42 in blocks of 128, once where only they fit and once (first byte: pq2_0) where both do.
  for (const std::uint64_t rows : {std::uint64_t{1}, std::uint64_t{8}}) {
    GgufBuilder old;
    old.architecture("qwen3").tensor({"w.weight", {256, rows}, 42, 0});
    old.data = std::string(rows == 1 ? 96 : 544, '\x3c');
    std::string bytes = old.build();
    bytes[0] = rows == 1 ? '\2' : '\0';
    write_bytes(root / "gguf" / ("old-" + std::to_string(rows)), bytes);
  }
  write_bytes(
      root / "json" / "hadamard",
      std::string(1, '\2') +
          R"({"prism.hadamard.version": 1, "prism.hadamard.block_size": 512, "prism.hadamard.transform":)"
          R"( "normalized-sylvester-walsh-hadamard", "prism.hadamard.axis": "input-last-dimension",)"
          R"( "prism.hadamard.sign_mode": "identity", "prism.hadamard.weight_names": ["w.weight"]})");
}

/// Whole models: a look-up, rotated back or not, and a rotated layer behind it, per tensor, row and group.
void write_models(const fs::path& root) {
  const std::string rotation =
      R"({"prism.hadamard.version": 1, "prism.hadamard.block_size": 512, "prism.hadamard.transform":)"
      R"( "normalized-sylvester-walsh-hadamard", "prism.hadamard.axis": "input-last-dimension",)"
      R"( "prism.hadamard.sign_mode": "identity", "prism.hadamard.weight_names": ["fc.weight"],)"
      R"( "prism.hadamard.inverse_weight_names": ["tok.weight"]})";
  for (const std::string scales : {"tensor", "row", "group"}) {
    io::MemoryCheckpoint model;
    for (const auto& [name, rows] : {std::pair("tok.weight", 4), std::pair("fc.weight", 2)}) {
      TernaryMatrix matrix{rows,
                           512,
                           std::vector<std::uint8_t>(static_cast<std::size_t>(128 * rows), 0x34),
                           {0.5F},
                           scales == "group" ? 256 : 0};
      matrix.scale.resize(
          scales == "tensor" ? 1U : static_cast<std::size_t>(scales == "row" ? rows : 2 * rows), 0.5F);
      model.add(name, matrix);
    }
    model.set_metadata("trit.model",
                       R"({"input":{"shape":[2]},"nodes":[{"op":"input"},{"op":"embedding","name":"tok",)"
                       R"("inputs":[0],"features":512},{"op":"bit_linear","name":"fc","inputs":[1],)"
                       R"("norm":"rms"}]})");
    if (scales != "row") {
      model.set_metadata(std::string(io::kRotationKey), rotation);
    }
    fs::create_directories(root / "folder");
    io::convert(model, root / "folder" / "model", {});
    write_bytes(root / "model" / scales, framed(root / "folder" / "model"));
    fs::remove_all(root / "folder");
  }
}

void write_seeds(const fs::path& root) {
  for (const std::string name : {"row", "tensor"}) {
    io::MemoryCheckpoint model;
    fill(model, name);
    fs::create_directories(root / "safetensors");
    fs::create_directories(root / "gguf");
    io::convert(model, root / "safetensors" / name, {});
    write_bytes(root / "trit" / name, framed(root / "safetensors" / name));
    for (const char* type : {"tq1_0", "tq2_0", "q2_0"}) {
      io::ConvertOptions options;
      options.to = io::Format::gguf;
      options.block_format = type;
      io::convert(model, root / "gguf" / (name + "-" + type), options);
    }
  }
  write_gguf(root / "gguf");
  write_groups(root);
  write_models(root);
  write_torchao(root / "safetensors" / "torchao");
  write_bytes(root / "torchao" / "packed", framed(root / "safetensors" / "torchao"));
  for (const char rows : {'\1', '\2'}) {
    std::string sizes(16, '\0');
    sizes[1] = 1;  // 256 columns
    sizes[8] = rows;
    write_bytes(root / "i2_s" / std::to_string(rows),
                sizes + std::string(static_cast<std::size_t>(64 * rows), '\x55') + std::string("\0\0\0?", 4) +
                    std::string(28, '\0'));
  }
  io::MemoryCheckpoint model;
  fill(model, "tensor");
  for (const auto convention : {io::ScaleConvention::multiply, io::ScaleConvention::divide}) {
    const std::string name = convention == io::ScaleConvention::multiply ? "multiply" : "divide";
    io::ConvertOptions options;
    options.to = io::Format::huggingface;
    options.scale_convention = convention;
    options.shard_bytes = 270;  // the matrix has 256 bytes, all tensors 280: two shards
    io::convert(model, root / "folder", options);
    write_bytes(root / "huggingface" / (name + "-shards"), joined(root / "folder", true));
    write_bytes(root / "json" / name, std::string(1, '\0') + read_bytes(root / "folder" / "config.json"));
    fs::remove_all(root / "folder");
    options.shard_bytes = 0;
    io::convert(model, root / "folder", options);
    write_bytes(root / "huggingface" / name, joined(root / "folder", false));
    write_bytes(root / "safetensors" / name, read_bytes(root / "folder" / "model.safetensors"));
    fs::remove_all(root / "folder");
  }
  // Float weights that are made ternary in each pass, and what Python's json writes.
  const std::string online =
      R"({"a": [Infinity, -Infinity, NaN], "quantization_config": {"quant_method": "bitnet", "linear_class":)"
      R"( "autobitlinear", "quantization_mode": "online", "use_rms_norm": true, "modules_to_not_convert":)"
      R"( ["lm_head", "model\\.layers\\.[0-9]+\\.mlp"]}})";
  write_bytes(root / "json" / "online", std::string(1, '\0') + online);
  const std::vector<float> values(8, 0.5F);
  const std::vector<std::uint8_t> bytes(8);
  std::vector<io::TensorToWrite> tensors{
      {"w.weight", "F32", {2, 4}, std::as_bytes(std::span(values))},
      {"w.rms_norm.weight", "F32", {4}, std::as_bytes(std::span(values)).first(16)}};
  fs::create_directories(root / "folder");
  io::save_safetensors(root / "folder" / "model.safetensors", tensors, {});
  write_bytes(root / "folder" / "config.json", online);
  write_bytes(root / "huggingface" / "online", joined(root / "folder", false));
  write_bytes(root / "folder" / "config.json", "{");
  write_bytes(root / "huggingface" / "broken-config", joined(root / "folder", false));
  fs::remove_all(root / "folder");
  const auto raw = [&](std::size_t count) { return std::as_bytes(std::span(bytes)).first(count); };
  tensors = {{"c", "C64", {1}, raw(8)},
             {"e", "F8_E8M0", {2}, raw(2)},
             {"f", "F4", {2, 2}, raw(2)},
             {"g", "F6_E2M3", {4}, raw(3)},
             {"h", "F8_E4M3FNUZ", {1}, raw(1)}};
  io::save_safetensors(root / "safetensors" / "dtypes", tensors, {});
  write_bytes(root / "json" / "map", std::string(1, '\1') + R"json({"a\\.(.*)": "b.$1", "c": null})json");
  write_bytes(root / "json" / "graph", std::string(1, '\3') + model.metadata().find("trit.model")->second);
  for (char kind = 0; kind < 9; ++kind) {
    write_bytes(root / "round_trip" / std::to_string(kind), std::string(1, kind) + "\3\5\2 codes and scales");
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
