// SPDX-License-Identifier: MIT
//
// Model files that must not load: each message names the file, the node, the tensor, what was found and
// wanted. And 240 corrupted copies of a good file.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "runtime/model_file.h"
#include "trit/error.h"
#include "trit/model.h"
#include "trit/safetensors.h"

namespace trit::test {
namespace {

/// 0 input 3x8x8, 1 conv, 2 relu, 3 max_pool2d, 4 flatten, 5 bit_linear, 6 linear.
ModelFile small_model() {
  ModelFile file({3, 8, 8}, 2000);
  file.graph["input"]["mean"] = {0.5, 0.5, 0.5};
  file.graph["input"]["std"] = {0.25, 0.25, 0.25};
  file.graph["input"]["classes"] = {"cat", "dog", "ship"};
  std::size_t at = file.relu(file.conv2d("conv1", 0, 3, 4, 3, 1, 1));
  at = file.flatten(file.pool("max_pool2d", at, 2, 2));
  at = file.bit_linear("fc1", at, 64, 6, Norm::rms, true, ScaleGranularity::row);
  file.linear("head", at, 6, 3);
  return file;
}

/// What load says of the small model after `damage`; "" if it loads.
std::string refusal(const std::function<void(ModelFile&)>& damage) {
  ModelFile file = small_model();
  damage(file);
  const TemporaryPath path("bad.safetensors");
  file.save(path.get());
  try {
    Model::load(path.get());
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find(path.get().string()), 0U) << error.what();
    return error.what();
  }
}

void expect_says(const std::string& message, const std::vector<std::string>& parts) {
  EXPECT_NE(message, "");
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos)
        << "\"" << message << "\" does not say \"" << part << '"';
  }
}

TEST(BadFile, TheUndamagedModelLoads) {
  EXPECT_EQ(refusal([](ModelFile&) {}), "");
}

TEST(BadFile, Metadata) {
  for (const char* key : {"trit.version", "trit.layout", "trit.scale"}) {
    expect_says(refusal([&](ModelFile& f) { f.metadata.erase(key); }), {key, "missing"});
    expect_says(refusal([&](ModelFile& f) { f.metadata[key] = "2"; }), {key, "\"2\", wanted \""});
  }
  const auto model = [](const std::string& text) {
    return refusal([&](ModelFile& f) { f.metadata["trit.model"] = text; });
  };
  expect_says(model(""), {"\"trit.model\"", "not valid JSON"});
  expect_says(model("[]"), {"found an array, wanted an object"});
  expect_says(model(R"({"input":{"shape":[4]}})"), {"no \"nodes\""});
  expect_says(model(R"({"nodes":[]})"), {"no \"input\""});
  expect_says(model(R"({"input":{"shape":[4]},"nodes":[{"op":"input"}]})"), {"1 nodes"});
  expect_says(model(R"({"input":{"shape":[4]},"nodes":[],"nodes":[]})"), {"\"nodes\" occurs twice"});
  expect_says(model(R"({"input":{"shape":[4],"shape":[4]},"nodes":[]})"), {"\"shape\" occurs twice"});
  expect_says(model(std::string("{}\0{}", 5)), {"a NUL at byte 2"});
  expect_says(model(std::string(100, '[')), {"nested deeper"});
  expect_says(model(std::string((1U << 20) + 1, ' ')), {"1048577 bytes of JSON"});
}

TEST(BadFile, WithoutAGraphTheMessageShowsOne) {
  const TemporaryPath path("no_graph.safetensors");
  const std::vector<std::byte> one(4);
  io::save_safetensors(path.get(), std::vector<io::TensorToWrite>{{"fc.weight", "F32", {1, 1}, one}}, {});
  try {
    Model::load(path.get());
    ADD_FAILURE() << "loaded";
  } catch (const Error& error) {
    expect_says(error.what(),
                {"no metadata \"trit.model\"", R"("nodes": [{"op": "input"})", "docs/quickstart.md"});
  }
}

TEST(BadFile, Input) {
  const auto input = [](const char* key, const nlohmann::json& value) {
    return refusal([&](ModelFile& f) { f.graph["input"][key] = value; });
  };
  expect_says(input("shape", nlohmann::json::array()), {"\"shape\" has 0 dimensions"});
  expect_says(input("shape", {3, 0, 8}), {"\"shape\"[1] is 0"});
  expect_says(input("shape", {3, -8, 8}), {"\"shape\"[1] is -8"});
  expect_says(input("shape", {3, 8.0, 8}), {"\"shape\"[1] is 8.0, wanted an integer"});
  expect_says(input("shape", {3, 18446744073709551615U, 8}), {"\"shape\"[1] is 18446744073709551615"});
  expect_says(input("shape", {3, 1 << 20, 1 << 20}), {"node 0 (input)", "wanted at most 268435456 elements"});
  expect_says(input("shape", "3"), {"\"shape\" is \"3\", wanted an array"});
  expect_says(input("mean", {0.5, 0.5}), {"2 values of \"mean\" and 3 of \"std\"", "wanted none or 3"});
  expect_says(input("mean", {0.5, "x", 0.5}), {"\"mean\"[1] is \"x\""});
  expect_says(input("mean", {0.5, 1e300, 0.5}), {"\"mean\"[1]", "finite"});
  expect_says(input("std", {0.5, 0.0, 0.5}), {"not positive"});
  expect_says(input("classes", {"a", "b"}), {"2 \"classes\", wanted none or 3"});
  expect_says(input("classes", {"a", "b", 3}), {"\"classes\"[2]"});
  expect_says(input("size", 3), {"unknown key \"size\""});
}

TEST(BadFile, Nodes) {
  const auto node = [](std::size_t index, const char* key, const nlohmann::json& value) {
    return refusal([&](ModelFile& f) { f.graph["nodes"][index][key] = value; });
  };
  const auto without = [](std::size_t index, const char* key) {
    return refusal([&](ModelFile& f) { f.graph["nodes"][index].erase(key); });
  };
  expect_says(node(2, "op", "swish"), {"node 2", "unknown op \"swish\"", "max_pool2d"});
  expect_says(node(2, "op", "input"), {"node 2", "nowhere else"});
  expect_says(node(0, "op", "relu"), {"node 0", "wanted \"input\""});
  expect_says(node(2, "op", 7), {"node 2: \"op\" is 7, wanted a string"});
  expect_says(without(2, "op"), {"node 2: no \"op\""});
  expect_says(node(2, "alpha", 1), {"node 2 (relu)", "unknown key \"alpha\""});
  expect_says(node(1, "dilation", 2), {"node 1 (conv2d \"conv1\")", "unknown key \"dilation\""});
  expect_says(without(1, "stride"), {"node 1 (conv2d \"conv1\"): no \"stride\""});
  expect_says(node(1, "stride", 0), {"\"stride\" is 0"});
  expect_says(node(1, "stride", 1.5), {"\"stride\" is 1.5, wanted an integer"});
  expect_says(node(1, "padding", -1), {"\"padding\" is -1"});
  expect_says(node(1, "padding", std::int64_t{1} << 62), {"\"padding\" is 4611686018427387904"});
  expect_says(node(1, "padding", 4096), {"node 1 (conv2d \"conv1\")", "[4, 8198, 8198]", "268435456"});
  expect_says(without(1, "name"), {"node 1 (conv2d): no \"name\""});
  expect_says(node(1, "name", ""), {"\"name\" has 0 bytes"});
  expect_says(node(6, "norm", "rms"), {"node 6 (linear \"head\")", "unknown key \"norm\""});
  expect_says(node(6, "name", "conv1"), {"node 6 (linear \"conv1\")", "node 1 has the same name"});
  expect_says(without(2, "inputs"), {"node 2 (relu): no \"inputs\""});
  expect_says(node(2, "inputs", {2}), {"node 2 (relu)", "one is 2, wanted an integer from 0 to 1"});
  expect_says(node(2, "inputs", {-1}), {"one is -1"});
  expect_says(node(2, "inputs", {0, 1}), {"2 inputs, wanted 1"});
  expect_says(node(2, "inputs", 1), {"\"inputs\" is 1, wanted an array"});
  expect_says(node(3, "inputs", {0}), {"node 2 (relu): no node uses its result"});
  expect_says(node(3, "kernel", 0), {"node 3 (max_pool2d)", "\"kernel\" is 0"});
  expect_says(node(3, "kernel", 9), {"a window of 9 over 8 inputs padded by 0"});
  expect_says(node(5, "norm", "layer"), {"node 5 (bit_linear \"fc1\")", "\"norm\" is \"layer\""});
  expect_says(without(5, "norm"), {"no \"norm\""});
  expect_says(node(5, "eps", 0), {"\"eps\" is 0, wanted a positive number"});
  expect_says(node(5, "eps", 1e-60), {"\"eps\" is 1e-60"});
  expect_says(refusal([](ModelFile& f) { f.graph["nodes"][2] = 3; }), {"node 2: not an object"});
  expect_says(refusal([](ModelFile& f) { f.graph["nodes"].push_back({{"op", "add"}, {"inputs", {6, 5}}}); }),
              {"node 7 (add)", "[3] and [6]"});
  expect_says(node(5, "inputs", {3}), {"node 4 (flatten): no node uses its result"});
}

TEST(BadFile, Tensors) {
  const auto tensor = [](const char* name, const std::function<void(OwnedTensor&)>& damage) {
    return refusal([&](ModelFile& f) { damage(f.tensor(name)); });
  };
  for (const char* name : {"conv1.weight", "fc1.weight", "fc1.weight_scale", "head.weight"}) {
    expect_says(refusal([&](ModelFile& f) { f.erase(name); }), {"no tensor \"" + std::string(name) + "\""});
  }
  expect_says(tensor("conv1.weight", [](OwnedTensor& t) { t.shape = {4, 27}; }),
              {"node 1 (conv2d \"conv1\")", "\"conv1.weight\"", "F32 [4, 27]", "[any, 3, any, any]"});
  expect_says(tensor("conv1.weight", [](OwnedTensor& t) { t.shape = {3, 4, 3, 3}; }), {"F32 [3, 4, 3, 3]"});
  expect_says(tensor("conv1.weight", [](OwnedTensor& t) { t.dtype = "I32"; }),
              {"I32 [4, 3, 3, 3]", "F32, F16 or BF16"});
  expect_says(tensor("conv1.bias", [](OwnedTensor& t) { t.shape = {2, 2}; }),
              {"\"conv1.bias\"", "F32 [2, 2], wanted", "[4]"});
  expect_says(tensor("conv1.weight", [](OwnedTensor& t) { t.shape = {0, 3, 3, 3}, t.data.clear(); }),
              {"F32 [0, 3, 3, 3]"});
  expect_says(tensor("fc1.weight", [](OwnedTensor& t) { t.shape = {12, 8}; }),
              {"node 5 (bit_linear \"fc1\")", "\"fc1.weight\"", "U8 [12, 8]", "U8 [any, 16]"});
  expect_says(tensor("fc1.weight", [](OwnedTensor& t) { t.dtype = "I8"; }), {"I8 [6, 16]", "U8 [any, 16]"});
  expect_says(tensor("fc1.weight_scale", [](OwnedTensor& t) { t.shape = {3, 2}; }),
              {"wanted F32 [1] or [6]"});
  const auto grouped = [](const std::string& group, const Shape& shape) {
    return refusal([&](ModelFile& f) {
      f.metadata["trit.group"] = group;
      f.set_floats("fc1.weight_scale", shape,
                   std::vector<float>(static_cast<std::size_t>(shape[0] * shape[1]), 1));
    });
  };
  EXPECT_EQ(grouped("32", {6, 2}), "");
  expect_says(grouped("48", {6, 2}), {"trit.group is \"48\"", "wanted a multiple of 32 from 32 to 2^30"});
  expect_says(grouped("9223372036854775776", {6, 2}), {"wanted a multiple of 32 from 32 to 2^30"});
  expect_says(grouped("32x", {6, 2}), {"trit.group is \"32x\"", "wanted a multiple of 32 from 32 to 2^30"});
  expect_says(grouped("64", {6, 2}),
              {"fc1.weight_scale", "F32 [6, 2]", "F32 or F16 [6, 1]", "\"trit.group\" is 64"});
  expect_says(refusal([](ModelFile& f) {
                f.metadata["trit.group"] = "32";
                f.set_floats("fc1.weight_scale", {6, 2}, {1, 1, 1, 1, 1, 1, 1, 1, 1, -1, 1, 1});
              }),
              {"fc1.weight_scale", "row 4, group 1", "positive"});
  expect_says(refusal([](ModelFile& f) { f.graph["nodes"][5]["token_scale"] = "group"; }),
              {"\"token_scale\" is \"group\", wanted \"token\""});
  expect_says(refusal([](ModelFile& f) { f.graph["nodes"][5]["token_scale"] = "row"; }),
              {"\"token_scale\" is \"row\", wanted \"token\" or \"group\""});
  expect_says(tensor("fc1.weight_scale", [](OwnedTensor& t) { t.dtype = "I32"; }),
              {"I32 [6]", "wanted F32 [1] or [6]"});
  expect_says(tensor("fc1.norm.weight", [](OwnedTensor& t) { t.shape = {8, 8}; }),
              {"\"fc1.norm.weight\"", "[64]"});
  expect_says(tensor("fc1.bias", [](OwnedTensor& t) { t.shape = {1, 6}; }), {"\"fc1.bias\"", "[6]"});
  expect_says(tensor("head.weight", [](OwnedTensor& t) { t.shape = {6, 3}; }),
              {"node 6 (linear \"head\")", "[any, 6]"});
  expect_says(tensor("fc1.weight", [](OwnedTensor& t) { t.data[17] = std::byte{0x02}; }),
              {"fc1.weight", "row 1", "code 2"});
  expect_says(refusal([](ModelFile& f) { f.set_floats("fc2.bias", {1}, {0}); }),
              {"tensor \"fc2.bias\"", "belongs to no node"});
  expect_says(refusal([](ModelFile& f) { f.graph["nodes"][5]["norm"] = "none"; }),
              {"tensor \"fc1.norm.weight\"", "belongs to no node"});
}

TEST(BadFile, PaddingPastTheLastColumn) {
  ModelFile file({6}, 2100);
  file.bit_linear("fc", 0, 6, 2, Norm::none);
  file.tensor("fc.weight").data[3] |= std::byte{0x10};  // column 6 of row 1
  const TemporaryPath path("padding.safetensors");
  file.save(path.get());
  try {
    Model::load(path.get());
    FAIL() << "loaded";
  } catch (const Error& error) {
    expect_says(error.what(), {"fc.weight", "row 1", "padding"});
  }
}

TEST(BadFile, ValuesThatAreNotFinite) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const char* name : {"conv1.weight", "conv1.bias", "fc1.weight_scale", "fc1.norm.weight", "fc1.bias",
                           "head.weight", "head.bias"}) {
    for (const float value : {kNan, kInfinity, -kInfinity}) {
      const std::string message = refusal([&](ModelFile& f) {
        std::vector<float> values = f.floats(name);
        values[2] = value;
        f.set_floats(name, f.tensor(name).shape, values);
      });
      expect_says(message, {name, "value 2", "finite"});
    }
  }
  for (const float value : {0.0F, -1.0F}) {
    const std::string message = refusal([&](ModelFile& f) {
      std::vector<float> values = f.floats("fc1.weight_scale");
      values[2] = value;
      f.set_floats("fc1.weight_scale", {6}, values);
    });
    expect_says(message, {"fc1.weight_scale", "value 2", "positive"});
  }
}

/// 240 copies: 120 flipped bits anywhere, 40 in the header, 40 truncations, 20 with bytes added, 20 with a
/// stretch overwritten. The file carries a checksum, so each must be refused; the one thing that it does not
/// cover is its own name in the metadata, and a flip there must leave the model as it was.
TEST(CorruptedCopies, AreRefused) {
  const ModelFile file = small_model();
  const TemporaryPath path("corrupt.safetensors");
  file.save(path.get());
  const std::vector<std::byte> good = read_bytes(path.get());
  const std::string text(reinterpret_cast<const char*>(good.data()), good.size());
  const std::size_t checksum_key = text.find("trit.crc32c");
  ASSERT_NE(checksum_key, std::string::npos);
  const std::size_t header_end = text.rfind('}', text.find("\"head.weight\"") + 200) + 1;
  const std::vector<float> x(2 * 192, 0.25F);
  const std::vector<float> wanted = Model::load(path.get()).run(x, 2);

  constexpr unsigned kSeed = 2200;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  for (int copy = 0; copy < 240; ++copy) {
    std::vector<std::byte> bytes = good;
    std::string what;
    bool harmless = false;
    if (copy < 160) {
      const std::size_t at = random() % (copy < 120 ? bytes.size() : header_end);
      const unsigned bit = random() % 8;
      bytes[at] ^= static_cast<std::byte>(1U << bit);
      what = "bit " + std::to_string(bit) + " of byte " + std::to_string(at);
      harmless = at >= checksum_key && at < checksum_key + std::string("trit.crc32c").size();
    } else if (copy < 200) {
      bytes.resize(random() % bytes.size());
      what = "cut to " + std::to_string(bytes.size());
    } else if (copy < 220) {
      bytes.resize(bytes.size() + 1 + random() % 100, static_cast<std::byte>(random() % 256));
      what = "grown to " + std::to_string(bytes.size());
    } else {
      const std::size_t at = random() % (bytes.size() - 16);
      for (std::size_t i = 0; i < 16; ++i) {
        bytes[at + i] = ~bytes[at + i];
      }
      what = "16 bytes inverted at " + std::to_string(at);
      harmless = false;
    }
    write_bytes(path.get(), bytes);
    try {
      const std::vector<float> found = Model::load(path.get()).run(x, 2);
      EXPECT_TRUE(harmless && found == wanted) << what << " was not found";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path.get().string()), std::string::npos) << error.what();
    }
  }
}

/// Without a checksum (files of other writers) a flip may go unseen, where the file stays a model: in the
/// text of the graph (a class name, a mean), a ternary code that becomes another, a float that stays finite.
/// What must be refused: flips in the length, in a tensor's dtype, shape or offsets, and every cut.
TEST(CorruptedCopies, WithoutAChecksumNothingCrashesAndTheStructureIsChecked) {
  const ModelFile file = small_model();
  const TemporaryPath path("corrupt.safetensors");
  file.save(path.get());
  std::vector<std::byte> good = read_bytes(path.get());
  std::string text(reinterpret_cast<const char*>(good.data()), good.size());
  good[text.find("trit.crc32c") + 5] = std::byte{'k'};  // "trit.krc32c": an entry like any other
  const std::size_t entries = text.find("\"head.weight\"") < text.find("\"conv1.weight\"")
                                  ? text.find("\"head.weight\"")
                                  : text.find("\"conv1.weight\"");
  const std::size_t header_end =
      8 + std::to_integer<std::size_t>(good[0]) + 256 * std::to_integer<std::size_t>(good[1]);
  const std::vector<float> x(2 * 192, 0.25F);

  constexpr unsigned kSeed = 2300;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  int loaded = 0;
  for (int copy = 0; copy < 300; ++copy) {
    std::vector<std::byte> bytes = good;
    const std::size_t at = copy < 150 ? random() % bytes.size() : random() % header_end;
    bytes[at] ^= static_cast<std::byte>(1U << (random() % 8));
    const bool must_fail = at < 8 || (at >= entries && at < header_end);
    write_bytes(path.get(), bytes);
    try {
      const Model model = Model::load(path.get());
      ++loaded;
      EXPECT_FALSE(must_fail) << "byte " << at;
      if (model.input().shape == Shape{3, 8, 8}) {
        EXPECT_EQ(model.run(x, 2).size(), 6U);
      }
    } catch (const Error&) {
    }
  }
  EXPECT_GT(loaded, 20);  // else the test damages too much to say anything
  EXPECT_LT(loaded, 250);
}

}  // namespace
}  // namespace trit::test
