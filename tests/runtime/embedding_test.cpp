// SPDX-License-Identifier: MIT
//
// Look-ups in ternary embeddings and rotated weights of a model file: bits against the definitions, and what is
// refused.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "runtime/model_file.h"
#include "runtime/same_bits.h"
#include "trit/error.h"
#include "trit/linear.h"
#include "trit/model.h"
#include "trit/rotation.h"

namespace trit::test {
namespace {

constexpr std::array kBackends{Backend::scalar, Backend::automatic};

std::vector<float> run(const ModelFile& file, const std::vector<float>& x, std::int64_t batch,
                       Backend backend = Backend::automatic) {
  const TemporaryPath path("embedding.safetensors");
  file.save(path.get());
  const Model model = Model::load(path.get(), {.backend = backend, .threads = 2});
  std::filesystem::remove(path.get());  // the model needs it no more
  return model.run(x, batch);
}

/// What loading the file or a run says; "" if both work.
std::string refusal(const ModelFile& file, const std::vector<float>& x = {}) {
  try {
    run(file, x, std::ssize(x));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void expect_says(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos)
        << "\"" << message << "\" does not say \"" << part << '"';
  }
}

/// The stored codes of a matrix, and its scales.
TernaryMatrix stored(const ModelFile& file, const std::string& name, std::int64_t features,
                     std::int64_t group) {
  const OwnedTensor& weight = const_cast<ModelFile&>(file).tensor(name + ".weight");
  TernaryMatrix matrix{weight.shape[0], features, {}, file.floats(name + ".weight_scale"), group};
  for (const std::byte byte : weight.data) {
    matrix.codes.push_back(static_cast<std::uint8_t>(byte));
  }
  return matrix;
}

/// Row `row` by the definition: t * scale, rotated back.
std::vector<float> row_of(const TernaryMatrix& matrix, std::int64_t row, const Rotation* rotation) {
  const auto features = static_cast<std::size_t>(matrix.in_features);
  const std::int64_t row_bytes = packed_row_bytes(matrix.in_features);
  std::vector<std::int8_t> t(features);
  unpack_row(std::span(matrix.codes)
                 .subspan(static_cast<std::size_t>(row * row_bytes), static_cast<std::size_t>(row_bytes)),
             t);
  std::vector<float> y(features);
  const std::int64_t groups = groups_of(matrix.in_features, matrix.group);
  for (std::size_t k = 0; k < features; ++k) {
    const std::int64_t g = matrix.group == 0 ? 0 : static_cast<std::int64_t>(k) / matrix.group;
    y[k] = static_cast<float>(t[k]) *
           matrix.scale[static_cast<std::size_t>(matrix.scale.size() == 1 ? 0 : row * groups + g)];
  }
  if (rotation != nullptr) {
    rotate_row_back(y, *rotation);
  }
  return y;
}

TEST(Embedding, SameBitsAsTheDefinition) {
  unsigned seed = 3000;
  for (const auto& [rows, features, group] : {std::array<std::int64_t, 3>{1, 1, 0},
                                              {7, 30, 0},
                                              {50, 131, 32},
                                              {9, 512, 128},
                                              {300, 3072, 128},
                                              {40, 2048, 64}}) {
    for (const auto scale : {ScaleGranularity::tensor, ScaleGranularity::row, ScaleGranularity::group}) {
      if (group == 0 && scale == ScaleGranularity::group) {
        continue;
      }
      for (const int kind : {0, 1, 2}) {  // not rotated, rotated, with signs
        if (kind != 0 && features % 512 != 0) {
          continue;
        }
        SCOPED_TRACE("seed " + std::to_string(++seed));
        ModelFile file({2, 3}, seed);
        const std::int64_t own_group = scale == ScaleGranularity::group ? group : 0;
        file.embedding("tok", rows, features, scale, own_group);
        const std::vector<std::int8_t> signs =
            kind == 2 ? file.random_signs(static_cast<std::size_t>(features)) : std::vector<std::int8_t>{};
        const Rotation rotation{features % 1024 == 0 ? 1024 : 512, kind == 2 ? signs.data() : nullptr};
        if (kind != 0) {
          file.rotate(rotation.block, signs, {}, {"tok.weight"});
        }
        constexpr std::int64_t kBatch = 5;
        std::vector<float> x = file.random(6 * kBatch, 0, static_cast<float>(rows));
        std::transform(x.begin(), x.end(), x.begin(), [](float index) { return std::floor(index); });
        x[0] = static_cast<float>(rows - 1);
        x[1] = 0;
        const TernaryMatrix matrix = stored(file, "tok", features, own_group);
        std::vector<float> wanted;
        for (const float index : x) {
          const auto y = row_of(matrix, static_cast<std::int64_t>(index), kind == 0 ? nullptr : &rotation);
          wanted.insert(wanted.end(), y.begin(), y.end());
        }
        for (const Backend backend : kBackends) {
          expect_same_bits(run(file, x, kBatch, backend), wanted);
        }
      }
    }
  }
}

TEST(Embedding, FeedsLayersAndHasAShape) {
  ModelFile file({4}, 3100);
  std::size_t at = file.embedding("tok", 20, 64, ScaleGranularity::group, 64);
  at = file.relu(at);
  file.bit_linear("head", at, 64, 5, Norm::rms, true, ScaleGranularity::group, 64);
  const TemporaryPath path("embedding.safetensors");
  file.save(path.get());
  const Model model = Model::load(path.get());
  EXPECT_EQ(model.output_shape(), (Shape{4, 5}));
  ASSERT_EQ(model.layers().size(), 2U);
  EXPECT_EQ(model.layers()[0].op, "embedding");
  EXPECT_EQ(model.layers()[0].shape, (Shape{20, 64}));
  const std::vector<float> x{3, 19, 0, 3};
  std::vector<float> wanted;
  for (const float index : x) {
    std::vector<float> row = row_of(stored(file, "tok", 64, 64), static_cast<std::int64_t>(index), nullptr);
    std::transform(row.begin(), row.end(), row.begin(), [](float v) { return v < 0 ? 0.0F : v; });
    const auto y = file.bit_linear_reference("head", row);
    wanted.insert(wanted.end(), y.begin(), y.end());
  }
  expect_same_bits(model.run(x, 1), wanted);
}

TEST(Embedding, IndexesThatAreNoRows) {
  ModelFile file({3}, 3200);
  file.embedding("tok", 10, 8);
  const TemporaryPath path("embedding.safetensors");
  file.save(path.get());
  const Model model = Model::load(path.get());
  const auto says = [&](float bad) {
    std::vector<float> x(6, 9.0F);
    x[4] = bad;
    try {
      model.run(x, 2);
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(says(9), "");
  EXPECT_EQ(says(-0.0F), "");
  for (const float bad : {10.0F, -1.0F, 0.5F, 1e30F, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    expect_says(says(bad), {"index 1 of batch row 1 is ", "wanted a whole number from 0 to 9",
                            "node 1 (embedding \"tok\")"});
  }
  std::vector<std::uint8_t> bytes(3);
  std::vector<float> y(24);
  const std::array<float, 3> one{1, 1, 1};
  EXPECT_THROW(model.run_images(bytes, one, one, 1, y), Error);
}

TEST(Embedding, Refusals) {
  const auto with = [](const std::function<void(ModelFile&)>& damage) {
    ModelFile file({3}, 3300);
    file.embedding("tok", 10, 128, ScaleGranularity::group, 64);
    damage(file);
    return refusal(file);
  };
  EXPECT_EQ(with([](ModelFile&) {}), "");
  const auto node = [](ModelFile& file) -> nlohmann::json& { return file.graph["nodes"][1]; };
  expect_says(with([&](ModelFile& f) { node(f).erase("features"); }), {"no \"features\""});
  expect_says(with([&](ModelFile& f) { node(f)["features"] = 0; }), {"\"features\"", "0"});
  expect_says(with([&](ModelFile& f) { node(f)["features"] = 256; }),
              {"node 1 (embedding \"tok\")", "tok.weight", "[10, 32]", "[any, 64]"});
  expect_says(with([&](ModelFile& f) { node(f)["norm"] = "rms"; }), {"\"norm\""});
  expect_says(with([](ModelFile& f) { f.tensor("tok.weight").data[5] = std::byte{2}; }),
              {"node 1 (embedding \"tok\")", "tensor tok.weight", "row 0", "columns 20"});
  expect_says(with([](ModelFile& f) {
                std::vector<float> scale = f.floats("tok.weight_scale");
                scale[3] = std::numeric_limits<float>::quiet_NaN();
                f.set_floats("tok.weight_scale", {10, 2}, scale);
              }),
              {"node 1 (embedding \"tok\")", "nan"});
  expect_says(with([](ModelFile& f) { f.erase("tok.weight_scale"); }), {"tok.weight_scale"});
  expect_says(
      with([](ModelFile& f) { f.set_floats("tok.weight", {10, 128}, std::vector<float>(1280, 0.5F)); }),
      {"tok.weight", "trit pack"});
  expect_says(with([&](ModelFile& f) {
                f.relu(0);
                f.graph["nodes"][2]["inputs"] = {0};
                std::swap(f.graph["nodes"][1], f.graph["nodes"][2]);
                f.graph["nodes"][2]["inputs"] = {1};
              }),
              {"node 2 (embedding \"tok\")", "reads node 1, wanted node 0"});
}

/// One layer on one row by the scalar kernels, which tests/cpu compares with the definition.
std::vector<float> rotated_reference(const ModelFile& file, const std::vector<float>& x, Norm norm,
                                     std::int64_t group, std::int64_t token_group, const Rotation& rotation) {
  const CpuKernels& kernels = cpu_kernels_for(Backend::scalar);
  const auto parallel = make_parallel(1);
  const std::int64_t k = std::ssize(x);
  const TernaryMatrix matrix = stored(file, "fc", k, group);
  std::vector<std::int8_t> q(static_cast<std::size_t>(padded_in_features(k)));
  std::vector<float> scale(static_cast<std::size_t>(groups_of(k, token_group)));
  std::int32_t q_sum = 0;
  const std::vector<float> weight = norm == Norm::rms ? file.floats("fc.norm.weight") : std::vector<float>{};
  norm_rotate_quant(kernels, *parallel,
                    {.x = x.data(),
                     .tokens = 1,
                     .in_features = k,
                     .x_stride = k,
                     .norm = norm,
                     .norm_weight = weight.empty() ? nullptr : weight.data(),
                     .q = q.data(),
                     .scale = scale.data(),
                     .q_sum = &q_sum,
                     .group = token_group},
                    rotation);
  std::vector<float> y(static_cast<std::size_t>(matrix.out_features));
  PackedLinear(kernels, *parallel, matrix.view())
      .product(*parallel,
               {.q = q.data(), .scale = scale.data(), .q_sum = &q_sum, .tokens = 1, .group = token_group},
               nullptr, DataType::float32, y.data());
  return y;
}

TEST(RotatedLayer, SameBitsAsTheDefinition) {
  unsigned seed = 3400;
  for (const auto& [in, block] :
       {std::pair<std::int64_t, std::int64_t>{512, 512}, {3072, 1024}, {2048, 2048}}) {
    for (const Norm norm : {Norm::none, Norm::rms}) {
      for (const std::int64_t group : {0, 128}) {
        for (const bool per_group : {false, true}) {
          if (per_group && group == 0) {
            continue;
          }
          SCOPED_TRACE("seed " + std::to_string(++seed));
          ModelFile file({in}, seed);
          file.bit_linear("fc", 0, in, 33, norm, false,
                          group == 0 ? ScaleGranularity::row : ScaleGranularity::group, group);
          file.graph["nodes"][1]["token_scale"] = per_group ? "group" : "token";
          const std::vector<std::int8_t> signs =
              seed % 3 == 0 ? std::vector<std::int8_t>{} : file.random_signs(static_cast<std::size_t>(in));
          const Rotation rotation{block, signs.empty() ? nullptr : signs.data()};
          file.rotate(block, signs, {"fc.weight"}, {});
          constexpr std::size_t kBatch = 7;
          const auto width = static_cast<std::size_t>(in);
          std::vector<float> x = file.random(kBatch * width, -3, 3);
          x[2 * width + 5] = std::numeric_limits<float>::quiet_NaN();
          std::vector<float> wanted;
          for (std::size_t row = 0; row < kBatch; ++row) {
            std::vector<float> own(x.begin() + static_cast<std::ptrdiff_t>(row * width),
                                   x.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
            const auto y = rotated_reference(file, own, norm, group, per_group ? group : 0, rotation);
            if (norm == Norm::none) {
              rotate_row(own, rotation);
              expect_same_bits(file.bit_linear_reference("fc", own), y);
            }
            wanted.insert(wanted.end(), y.begin(), y.end());
          }
          for (const Backend backend : kBackends) {
            expect_same_bits(run(file, x, kBatch, backend), wanted);
          }
        }
      }
    }
  }
}

TEST(RotatedLayer, Refusals) {
  const auto with = [](const std::function<void(ModelFile&)>& damage) {
    ModelFile file({1024}, 3500);
    file.linear("head", file.bit_linear("fc", 0, 1024, 6, Norm::none), 6, 3);
    damage(file);
    return refusal(file);
  };
  const std::vector<std::int8_t> signs(1024, 1);
  EXPECT_EQ(with([&](ModelFile& f) { f.rotate(1024, signs, {"fc.weight"}, {}); }), "");
  expect_says(with([&](ModelFile& f) { f.rotate(2048, {}, {"fc.weight"}, {}); }),
              {"node 1 (bit_linear \"fc\")", "\"fc.weight\" has 1024 inputs",
               "wanted a multiple of \"prism.hadamard.block_size\", 2048"});
  expect_says(with([&](ModelFile& f) { f.rotate(512, std::vector<std::int8_t>(512, 1), {"fc.weight"}, {}); }),
              {"\"fc.weight\" has 1024 inputs", "prism.hadamard.sign_widths"});
  const auto edited = [&](const char* key, const nlohmann::json& value) {
    return with([&](ModelFile& f) {
      f.rotate(512, signs, {"fc.weight"}, {});
      auto json = nlohmann::json::parse(f.metadata["trit.hadamard"]);
      json[std::string("prism.hadamard.") + key] = value;
      f.metadata["trit.hadamard"] = json.dump();
    });
  };
  expect_says(edited("sign_values", std::vector<int>(1023, 1)),
              {"embedding.safetensors", "prism.hadamard.sign_values", "1023 values", "1024"});
  std::vector<int> values(1024, 1);
  values[700] = 3;
  expect_says(edited("sign_values", values), {"prism.hadamard.sign_values", "3.0 at 700", "1 or -1"});
  expect_says(edited("block_size", 768), {"prism.hadamard.block_size", "768", "512, 1024, 2048 or 4096"});
  expect_says(edited("gdn_v_grouped", true), {"prism.hadamard.gdn_v_grouped", "true, wanted false"});
  expect_says(edited("weight_names", {"fc.weight", "head.weight"}),
              {"prism.hadamard.weight_names", "\"head.weight\"", "bit_linear"});
  expect_says(edited("inverse_weight_names", {"fc.weight"}),
              {"prism.hadamard.inverse_weight_names", "\"fc.weight\"", "embedding"});
  expect_says(with([](ModelFile& f) { f.metadata["trit.hadamard"] = "{}"; }),
              {"prism.hadamard.version", "missing"});
}

}  // namespace
}  // namespace trit::test
