// SPDX-License-Identifier: MIT
//
// pack() and save_packed(): the tensors of a module in the stored form, and the file of them.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "torch/reference.h"
#include "trit/error.h"
#include "trit/model.h"
#include "trit/safetensors.h"

namespace trit::test {
namespace {

using torch::Tensor;

TEST(Pack, GivesTheStoredForm) {
  torch::manual_seed(36);
  torch::nn::Sequential net(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3)), torch::nn::Flatten(),
                            layer(37, 6, true, Norm::rms),
                            layer(6, 5, false, Norm::none, ScaleGranularity::row));
  const auto tensors = nn::pack(*net);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    names.push_back(name);
    EXPECT_TRUE(tensor.is_contiguous() && tensor.is_cpu() && !tensor.requires_grad());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"0.bias", "0.weight", "2.bias", "2.norm.weight", "2.weight",
                                             "2.weight_scale", "3.weight", "3.weight_scale"}));
  for (const auto& [index, granularity] :
       {std::pair{2, ScaleGranularity::tensor}, std::pair{3, ScaleGranularity::row}}) {
    const auto& weight = net->at<nn::BitLinearImpl>(static_cast<std::size_t>(index)).weight;
    const auto want = trit::pack(values(weight), weight.size(0), weight.size(1), granularity);
    const auto& codes = tensors.at(std::to_string(index) + ".weight");
    const auto& scale = tensors.at(std::to_string(index) + ".weight_scale");
    EXPECT_EQ(codes.sizes(), torch::IntArrayRef({weight.size(0), packed_row_bytes(weight.size(1))}));
    EXPECT_TRUE(std::equal(want.codes.begin(), want.codes.end(), codes.const_data_ptr<std::uint8_t>()));
    EXPECT_EQ(scale.numel(), static_cast<std::int64_t>(want.scale.size()));
    EXPECT_TRUE(std::equal(want.scale.begin(), want.scale.end(), scale.const_data_ptr<float>()));
  }
  // Copies: training on does not change them.
  const auto before = tensors.at("0.weight").clone();
  net->parameters()[0].data().zero_();
  EXPECT_TRUE(torch::equal(tensors.at("0.weight"), before));
}

TEST(Pack, KeepsBuffers) {
  torch::manual_seed(37);
  torch::nn::Sequential net(layer(8, 6, false, Norm::none), torch::nn::BatchNorm1d(6));
  net->forward(torch::randn({16, 8}));  // moves the statistics
  struct Masked : torch::nn::Module {
    Masked() {
      register_buffer("mask", torch::tensor({true, false}));
      register_buffer("none", Tensor());
      register_buffer("offset", torch::tensor(2.5, torch::kDouble));
    }
  };
  const auto tensors = nn::pack(*net);
  const auto buffers = net->named_buffers();
  for (const char* name : {"1.running_mean", "1.running_var"}) {
    ASSERT_TRUE(tensors.contains(name));
    EXPECT_EQ(tensors.at(name).scalar_type(), torch::kFloat);
    EXPECT_TRUE(torch::equal(tensors.at(name), buffers[name]));
  }
  EXPECT_EQ(tensors.at("1.num_batches_tracked").scalar_type(), torch::kLong);
  EXPECT_EQ(tensors.at("1.num_batches_tracked").item<std::int64_t>(), 1);
  Masked masked;
  const auto own = nn::pack(masked);
  EXPECT_EQ(own.size(), 2U);
  EXPECT_TRUE(torch::equal(own.at("mask"), torch::tensor({true, false})));
  EXPECT_EQ(own.at("offset").item<float>(), 2.5F);
  // Copies, and no NaN in them.
  buffers["1.running_mean"].zero_();
  EXPECT_FALSE(tensors.at("1.running_mean").eq(0).all().item<bool>());
  buffers["1.running_var"][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(nn::pack(*net), Error);
  masked.register_buffer("complex", torch::zeros({2}, torch::kComplexFloat));
  EXPECT_THROW(nn::pack(masked), c10::Error);
}

TEST(Pack, NamesWhatIsNotFinite) {
  torch::nn::Sequential net(layer(37, 6, true, Norm::rms));
  net->at<nn::BitLinearImpl>(0).weight.data()[4][31] = std::numeric_limits<float>::quiet_NaN();
  try {
    nn::pack(*net);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("0.weight is nan at row 4, column 31"), std::string::npos)
        << error.what();
  }
  net->at<nn::BitLinearImpl>(0).weight.data()[4][31] = 1.0F;
  net->at<nn::BitLinearImpl>(0).norm->weight.data()[3] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(nn::pack(*net), Error);
}

// 64 -> 37 -> 5, the second without a norm and with a scale per row: 37 is no multiple of 4.
struct Perceptron : torch::nn::Module {
  nn::BitLinear fc1 = register_module("fc1", layer(64, 37, true, Norm::rms));
  nn::BitLinear fc2 = register_module("fc2", layer(37, 5, false, Norm::none, ScaleGranularity::row));
  Tensor forward(const Tensor& x) { return fc2(torch::relu(fc1(x))); }
};
constexpr const char* kGraph = R"({"input": {"shape": [64]}, "nodes": [{"op": "input"},
    {"op": "bit_linear", "name": "fc1", "inputs": [0], "norm": "rms"}, {"op": "relu", "inputs": [1]},
    {"op": "bit_linear", "name": "fc2", "inputs": [2], "norm": "none"}]})";

class SavePacked : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    torch::manual_seed(38);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  // The error of saving `graph` over a file, which must stay, with nothing beside it.
  std::string error_of(const torch::nn::Module& module, const std::string& graph,
                       const std::map<std::string, std::string, std::less<>>& metadata = {}) const {
    std::ofstream(path) << "before";
    std::string text = "no error";
    try {
      nn::save_packed(module, path, graph, metadata);
    } catch (const Error& error) {
      text = error.what();
      std::ostringstream content;
      content << std::ifstream(path).rdbuf();
      EXPECT_EQ(content.str(), "before");
      EXPECT_EQ(text.find(".tmp-"), std::string::npos) << text;
      EXPECT_NE(text.find(path.string()), std::string::npos) << text;
    }
    const std::filesystem::directory_iterator files(folder);
    EXPECT_EQ(std::distance(begin(files), end(files)), 1);
    return text;
  }

  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / ("trit-save-packed-" + std::to_string(getpid()));
  const std::filesystem::path path = folder / "model.safetensors";
};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST_F(SavePacked, WritesAModelThatRunsToTheSameBits) {
  Perceptron net;
  nn::save_packed(net, path, kGraph, {{"author", "a test"}});
  const auto model = Model::load(path);
  const Tensor x = torch::randn({3, 64});
  const std::vector<float> y = model.run({x.const_data_ptr<float>(), 3 * 64}, 3);
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(same_bits(torch::tensor(y).reshape({3, 5}), net.forward(x)));
  const auto file = io::SafetensorsFile::open(path);
  EXPECT_EQ(file.metadata().at("author"), "a test");
  EXPECT_EQ(file.metadata().at("trit.model"), kGraph);
  EXPECT_EQ(file.metadata().at("trit.in_features.fc2.weight"), "37");
  io::verify_checksum(file);

  nn::save_packed(net, folder / "again", kGraph, {{"author", "a test"}});  // the same bytes
  std::ostringstream first, second;
  first << std::ifstream(path).rdbuf();
  second << std::ifstream(folder / "again").rdbuf();
  EXPECT_EQ(first.str(), second.str());
}

TEST_F(SavePacked, GeluAndBatchNormGiveWhatTheModuleGives) {
  struct Net : torch::nn::Module {
    Net() {
      conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3).padding(1)));
      norm = register_module("norm", torch::nn::BatchNorm2d(8));
      fc = register_module("fc", torch::nn::Linear(8 * 36, 10));
      last = register_module("last", torch::nn::BatchNorm1d(torch::nn::BatchNormOptions(10).affine(false)));
    }
    Tensor forward(const Tensor& x) {
      const Tensor features = torch::gelu(norm(conv(x)));
      return torch::gelu(last(fc(features.flatten(1))), "tanh");
    }
    torch::nn::Conv2d conv{nullptr};
    torch::nn::BatchNorm2d norm{nullptr};
    torch::nn::Linear fc{nullptr};
    torch::nn::BatchNorm1d last{nullptr};
  };
  Net net;
  for (int step = 0; step < 3; ++step) {
    net.forward(torch::randn({16, 3, 6, 6}));  // the statistics
  }
  net.eval();
  nn::save_packed(net, path, R"({"input": {"shape": [3, 6, 6]}, "nodes": [{"op": "input"},
      {"op": "conv2d", "name": "conv", "inputs": [0], "stride": 1, "padding": 1},
      {"op": "batch_norm", "name": "norm", "inputs": [1]},
      {"op": "gelu", "inputs": [2], "approximate": "none"},
      {"op": "flatten", "inputs": [3]},
      {"op": "linear", "name": "fc", "inputs": [4]},
      {"op": "batch_norm", "name": "last", "inputs": [5], "eps": 1e-5},
      {"op": "gelu", "inputs": [6], "approximate": "tanh"}]})");
  const Tensor x = torch::randn({5, 3, 6, 6});
  const std::vector<float> y = Model::load(path).run({x.const_data_ptr<float>(), 5 * 108}, 5);
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(torch::tensor(y).reshape({5, 10}).allclose(net.forward(x), 1e-4, 1e-5));
}

TEST_F(SavePacked, WithoutAGraphHoldsTheTensors) {
  torch::nn::Sequential net(layer(37, 6, true, Norm::rms), torch::nn::BatchNorm1d(6));
  nn::save_packed(*net, path);
  const auto file = io::SafetensorsFile::open(path);
  const auto packed = nn::pack(*net);
  EXPECT_EQ(file.tensors().size(), packed.size());
  EXPECT_EQ(file.at("0.weight").dtype, "U8");
  EXPECT_EQ(file.at("1.running_var").dtype, "F32");
  EXPECT_EQ(file.at("1.num_batches_tracked").dtype, "I64");
  EXPECT_FALSE(file.metadata().contains("trit.model"));
  EXPECT_EQ(file.metadata().at("trit.in_features.0.weight"), "37");
}

TEST_F(SavePacked, RefusesAGraphThatIsNotTheModules) {
  Perceptron net;
  const auto expect = [&](const std::string& graph, const std::string& needle) {
    const std::string error = error_of(net, graph);
    EXPECT_NE(error.find(needle), std::string::npos) << error;
  };
  expect("{", "trit.model");
  expect(replaced(kGraph, "relu", "swish"), "unknown op");
  expect(replaced(kGraph, "fc1", "fc3"), "fc3.weight");
  expect(replaced(kGraph, "[64]", "[60]"), "fc1");
  expect(replaced(kGraph, "\"norm\": \"rms\"", "\"norm\": \"none\""), "\"norm\" is \"none\", wanted \"rms\"");
  expect(replaced(kGraph, "\"rms\"", "\"rms\", \"eps\": 1e-5"), "\"eps\"");
  expect(R"({"input": {"shape": [64]}, "nodes": [{"op": "input"},
             {"op": "bit_linear", "name": "fc1", "inputs": [0], "norm": "rms"}]})",
         "fc2");  // a tensor that no node uses
  net.fc1->weight.data()[1][2] = std::numeric_limits<float>::infinity();
  expect(kGraph, "fc1.weight is inf at row 1, column 2");
}

TEST_F(SavePacked, RefusesPlacesAndKeysThatAreNotTheCallers) {
  Perceptron net;
  for (const char* key : {"trit.version", "trit.scale", "trit.model", "trit.crc32c"}) {
    EXPECT_NE(error_of(net, kGraph, {{key, "x"}}).find(key), std::string::npos);
  }
  EXPECT_THROW(nn::save_packed(net, folder, kGraph), Error);
  EXPECT_THROW(nn::save_packed(net, folder / "nowhere" / "m", kGraph), Error);
  EXPECT_THROW(nn::save_packed(net, "/dev/null", kGraph), Error);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

}  // namespace
}  // namespace trit::test
