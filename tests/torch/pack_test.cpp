// SPDX-License-Identifier: MIT
//
// pack(): the tensors of a module in the stored form.
#include <limits>

#include "torch/reference.h"
#include "trit/error.h"

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
  net->to(torch::kHalf);
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
    EXPECT_TRUE(torch::equal(tensors.at(name), buffers[name].to(torch::kFloat)));
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

}  // namespace
}  // namespace trit::test
