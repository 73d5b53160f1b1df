// SPDX-License-Identifier: MIT
#include "runtime/model_file.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "runtime/winograd_bound.h"

namespace trit::test {
namespace {

/// gamma_n of fp32: the relative error of n roundings.
double gamma(std::int64_t n) {
  const double u = std::ldexp(1.0, -24) * static_cast<double>(n);
  return u / (1 - u);
}

struct Value {
  Shape shape;
  std::vector<Bounded> data;
};

Value windows(const nlohmann::json& node, const Value& x, bool largest) {
  const std::int64_t kernel = node["kernel"];
  const std::int64_t stride = node["stride"];
  const std::int64_t height = (x.shape[1] - kernel) / stride + 1;
  const std::int64_t width = (x.shape[2] - kernel) / stride + 1;
  Value y{{x.shape[0], height, width}, {}};
  for (std::int64_t c = 0; c < x.shape[0]; ++c) {
    for (std::int64_t row = 0; row < height; ++row) {
      for (std::int64_t column = 0; column < width; ++column) {
        Bounded best{-INFINITY, 0};
        double sum = 0, size = 0, error = 0;
        for (std::int64_t i = 0; i < kernel * kernel; ++i) {
          const std::int64_t from_row = row * stride + i / kernel;
          const std::int64_t from_column = column * stride + i % kernel;
          const Bounded& v =
              x.data[static_cast<std::size_t>((c * x.shape[1] + from_row) * x.shape[2] + from_column)];
          // A NaN wins, and then nothing is larger.
          best = {v.value > best.value || std::isnan(v.value) ? v.value : best.value,
                  std::max(best.error, v.error)};
          sum += v.value;
          size += std::fabs(v.value) + v.error;
          error += v.error;
        }
        const auto count = static_cast<double>(kernel * kernel);
        const double bound = std::isfinite(sum) ? (error + gamma(kernel * kernel + 2) * size) / count : 0;
        y.data.push_back(largest ? best : Bounded{sum / count, bound});
      }
    }
  }
  return y;
}

/// src/runtime/ops/gelu.h has the error of one result; the slope is at most 1.13.
Bounded gelu_of(const Bounded& x, bool by_tanh) {
  const double inner = by_tanh ? std::tanh(std::sqrt(2 / 3.14159265358979323846) *
                                           (x.value + 0.044715 * x.value * x.value * x.value))
                               : std::erf(x.value * std::sqrt(0.5));
  const double y = 0.5 * x.value * (1 + inner);
  const double error =
      1.13 * x.error + 5 * std::ldexp(std::fabs(x.value) + x.error, -24) + std::ldexp(1.0, -149);
  return {y, std::isfinite(y) ? error : 0};
}

/// src/runtime/ops/batch_norm.cpp has the error of one result. As a part of weights each product is off by
/// 2 u more, which is less than what their sum has as its error.
Bounded normalised(const Bounded& x, double scale, double shift) {
  const double y = x.value * scale + shift;
  const double size = (std::fabs(x.value) + x.error) * std::fabs(scale) + std::fabs(shift);
  const double error =
      2 * std::max(1.0, std::fabs(scale)) * x.error + 3 * std::ldexp(size, -24) + std::ldexp(1.0, -149);
  return {y, std::isfinite(y) ? error : 0};
}

/// Sum of w * x over n terms plus a bias, and its bound.
class Sum {
 public:
  explicit Sum(double product_error) : product_error_(product_error) {}
  void add(double w, const Bounded& x) {
    value_ += w * x.value;
    error_ += std::fabs(w) * x.error;
    size_ += std::fabs(w) * (std::fabs(x.value) + x.error);
    ++terms_;
  }
  /// An infinity or a NaN is exact: it depends on no rounding.
  Bounded result(double bias) const {
    if (!std::isfinite(value_ + bias)) {
      return {value_ + bias, 0};
    }
    return {value_ + bias, error_ + product_error_ * size_ + gamma(terms_ + 2) * (size_ + std::fabs(bias))};
  }

 private:
  double product_error_;
  double value_ = 0, error_ = 0, size_ = 0;
  std::int64_t terms_ = 0;
};

}  // namespace

ModelFile::ModelFile(Shape input_shape, unsigned seed)
    : graph{{"input", {{"shape", input_shape}}}, {"nodes", {{{"op", "input"}}}}},
      metadata{{"trit.version", "1"}, {"trit.layout", "rows-2bit"}, {"trit.scale", "multiply"}},
      generator_(seed) {}

std::vector<std::int8_t> ModelFile::random_signs(std::size_t count) {
  std::vector<std::int8_t> signs;
  for (const float value : random(count, -1, 1)) {
    signs.push_back(value < 0 ? -1 : 1);
  }
  return signs;
}

void ModelFile::rotate(std::int64_t block, const std::vector<std::int8_t>& signs,
                       const std::vector<std::string>& weights, const std::vector<std::string>& look_ups) {
  nlohmann::json json{{"prism.hadamard.version", 1},
                      {"prism.hadamard.block_size", block},
                      {"prism.hadamard.transform", "normalized-sylvester-walsh-hadamard"},
                      {"prism.hadamard.axis", "input-last-dimension"},
                      {"prism.hadamard.sign_mode", signs.empty() ? "identity" : "explicit"},
                      {"prism.hadamard.weight_names", weights},
                      {"prism.hadamard.inverse_weight_names", look_ups}};
  if (!signs.empty()) {
    json["prism.hadamard.sign_widths"] = {signs.size()};
    json["prism.hadamard.sign_values"] = std::vector<int>(signs.begin(), signs.end());
  }
  metadata["trit.hadamard"] = json.dump();
}

std::vector<float> ModelFile::random(std::size_t count, float low, float high) {
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> values(count);
  std::generate(values.begin(), values.end(), [&] { return distribution(generator_); });
  return values;
}

std::size_t ModelFile::add_node(nlohmann::json node) {
  graph["nodes"].push_back(std::move(node));
  return graph["nodes"].size() - 1;
}

void ModelFile::set_floats(const std::string& name, const Shape& shape, const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  const auto at = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
  OwnedTensor fresh{name, "F32", shape, {bytes.begin(), bytes.end()}};
  if (at == tensors.end()) {
    tensors.push_back(std::move(fresh));
  } else {
    *at = std::move(fresh);
  }
}

std::size_t ModelFile::conv2d(const std::string& name, std::size_t input, std::int64_t in, std::int64_t out,
                              std::int64_t kernel, std::int64_t stride, std::int64_t padding, bool bias) {
  const float range = 1 / std::sqrt(static_cast<float>(in * kernel * kernel));
  set_floats(name + ".weight", {out, in, kernel, kernel},
             random(static_cast<std::size_t>(out * in * kernel * kernel), -range, range));
  if (bias) {
    set_floats(name + ".bias", {out}, random(static_cast<std::size_t>(out), -range, range));
  }
  return add_node(
      {{"op", "conv2d"}, {"name", name}, {"inputs", {input}}, {"stride", stride}, {"padding", padding}});
}

std::size_t ModelFile::linear(const std::string& name, std::size_t input, std::int64_t in, std::int64_t out,
                              bool bias) {
  const float range = 1 / std::sqrt(static_cast<float>(in));
  set_floats(name + ".weight", {out, in}, random(static_cast<std::size_t>(out * in), -range, range));
  if (bias) {
    set_floats(name + ".bias", {out}, random(static_cast<std::size_t>(out), -range, range));
  }
  return add_node({{"op", "linear"}, {"name", name}, {"inputs", {input}}});
}

void ModelFile::add_ternary(const std::string& name, std::int64_t out, std::int64_t in,
                            ScaleGranularity scale, std::int64_t group) {
  const TernaryMatrix matrix =
      pack(random(static_cast<std::size_t>(in * out), -0.1F, 0.1F), out, in, scale, group);
  const auto codes = std::as_bytes(std::span(matrix.codes));
  tensors.push_back({name + ".weight", "U8", {out, packed_row_bytes(in)}, {codes.begin(), codes.end()}});
  if (group == 0) {
    set_floats(name + ".weight_scale", {static_cast<std::int64_t>(matrix.scale.size())}, matrix.scale);
  } else {
    set_floats(name + ".weight_scale", {out, groups_of(in, group)}, matrix.scale);
    metadata["trit.group"] = std::to_string(group);
  }
}

std::size_t ModelFile::embedding(const std::string& name, std::int64_t rows, std::int64_t features,
                                 ScaleGranularity scale, std::int64_t group) {
  add_ternary(name, rows, features, scale, group);
  return add_node({{"op", "embedding"}, {"name", name}, {"inputs", {0}}, {"features", features}});
}

std::size_t ModelFile::bit_linear(const std::string& name, std::size_t input, std::int64_t in,
                                  std::int64_t out, Norm norm, bool bias, ScaleGranularity scale,
                                  std::int64_t group) {
  add_ternary(name, out, in, scale, group);
  if (norm == Norm::rms) {
    set_floats(name + ".norm.weight", {in}, random(static_cast<std::size_t>(in), 0.5F, 1.5F));
  }
  if (bias) {
    set_floats(name + ".bias", {out}, random(static_cast<std::size_t>(out), -1, 1));
  }
  return add_node({{"op", "bit_linear"},
                   {"name", name},
                   {"inputs", {input}},
                   {"norm", norm == Norm::rms ? "rms" : "none"}});
}

std::size_t ModelFile::pool(const std::string& op, std::size_t input, std::int64_t kernel,
                            std::int64_t stride) {
  return add_node({{"op", op}, {"inputs", {input}}, {"kernel", kernel}, {"stride", stride}});
}
std::size_t ModelFile::relu(std::size_t input) { return add_node({{"op", "relu"}, {"inputs", {input}}}); }
std::size_t ModelFile::gelu(std::size_t input, const std::string& approximate) {
  return add_node({{"op", "gelu"}, {"inputs", {input}}, {"approximate", approximate}});
}
std::size_t ModelFile::batch_norm(const std::string& name, std::size_t input, std::int64_t channels) {
  const auto count = static_cast<std::size_t>(channels);
  set_floats(name + ".running_mean", {channels}, random(count, -1, 1));
  set_floats(name + ".running_var", {channels}, random(count, 0.25F, 4));
  set_floats(name + ".weight", {channels}, random(count, -2, 2));
  set_floats(name + ".bias", {channels}, random(count, -1, 1));
  return add_node({{"op", "batch_norm"}, {"name", name}, {"inputs", {input}}, {"eps", 1e-3}});
}
std::size_t ModelFile::add(std::size_t a, std::size_t b) {
  return add_node({{"op", "add"}, {"inputs", {a, b}}});
}
std::size_t ModelFile::flatten(std::size_t input) {
  return add_node({{"op", "flatten"}, {"inputs", {input}}});
}

void ModelFile::save(const std::filesystem::path& path) const {
  std::vector<io::TensorToWrite> list;
  for (const OwnedTensor& tensor : tensors) {
    list.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.data});
  }
  Metadata all = metadata;
  all.try_emplace("trit.model", graph.dump());
  io::save_safetensors(path, list, all);
}

bool ModelFile::has(const std::string& name) const {
  return std::any_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
}
OwnedTensor& ModelFile::tensor(const std::string& name) {
  const auto at = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
  if (at == tensors.end()) {
    throw std::out_of_range(name);
  }
  return *at;
}
void ModelFile::erase(const std::string& name) {
  std::erase_if(tensors, [&](const auto& t) { return t.name == name; });
}
std::vector<float> ModelFile::floats(const std::string& name) const {
  const OwnedTensor& found = const_cast<ModelFile*>(this)->tensor(name);
  std::vector<float> values(found.data.size() / sizeof(float));
  std::memcpy(values.data(), found.data.data(), found.data.size());
  return values;
}

std::vector<Bounded> ModelFile::reference(const std::vector<float>& x, double product_error) const {
  std::vector<Value> values;
  for (const auto& node : graph["nodes"]) {
    const std::string op = node["op"];
    if (op == "input") {
      values.push_back({graph["input"]["shape"].get<Shape>(), {}});
      std::transform(x.begin(), x.end(), std::back_inserter(values[0].data),
                     [](float v) { return Bounded{static_cast<double>(v), 0}; });
      continue;
    }
    const Value& in = values[node["inputs"][0].get<std::size_t>()];
    Value y = in;
    if (op == "relu") {
      for (Bounded& v : y.data) {
        v.value = v.value < 0 ? 0 : v.value;  // NaN passes
      }
    } else if (op == "flatten") {
      y.shape = {static_cast<std::int64_t>(y.data.size())};
    } else if (op == "max_pool2d" || op == "avg_pool2d") {
      y = windows(node, in, op == "max_pool2d");
    } else if (op == "add") {
      const Value& other = values[node["inputs"][1].get<std::size_t>()];
      for (std::size_t i = 0; i < y.data.size(); ++i) {
        const double sum = y.data[i].value + other.data[i].value;
        const double error = y.data[i].error + other.data[i].error;
        y.data[i] = {sum, std::isfinite(sum) ? error + gamma(1) * (std::fabs(sum) + error) : 0};
      }
    } else if (op == "gelu") {
      for (Bounded& v : y.data) {
        v = gelu_of(v, node["approximate"] == "tanh");
      }
    } else if (op == "batch_norm") {
      const std::string name = node["name"];
      const std::size_t channels = static_cast<std::size_t>(in.shape[0]);
      const std::vector<float> mean = floats(name + ".running_mean"),
                               variance = floats(name + ".running_var");
      const std::vector<float> weight =
          has(name + ".weight") ? floats(name + ".weight") : std::vector<float>(channels, 1);
      const std::vector<float> bias =
          has(name + ".bias") ? floats(name + ".bias") : std::vector<float>(channels, 0);
      for (std::size_t i = 0; i < y.data.size(); ++i) {
        const std::size_t c = i / (y.data.size() / channels);
        const double scale =
            static_cast<double>(weight[c]) /
            std::sqrt(static_cast<double>(variance[c]) + static_cast<double>(node.value("eps", 1e-5F)));
        y.data[i] =
            normalised(y.data[i], scale, static_cast<double>(bias[c]) - static_cast<double>(mean[c]) * scale);
      }
    } else if (op == "conv2d" || op == "linear") {
      const std::string name = node["name"];
      const std::vector<float> weight = floats(name + ".weight");
      const Shape shape = const_cast<ModelFile*>(this)->tensor(name + ".weight").shape;
      const std::vector<float> bias = has(name + ".bias")
                                          ? floats(name + ".bias")
                                          : std::vector<float>(static_cast<std::size_t>(shape[0]), 0.0F);
      const bool image = op == "conv2d";
      const std::int64_t kh = image ? shape[2] : 1;
      const std::int64_t kw = image ? shape[3] : 1;
      const std::int64_t stride = image ? node["stride"].get<std::int64_t>() : 1;
      const std::int64_t padding = image ? node["padding"].get<std::int64_t>() : 0;
      // linear: rows of the last dimension, as a 1x1 convolution over a transposed image would be.
      const std::int64_t channels = shape[1];
      const std::int64_t h = image ? in.shape[1] : static_cast<std::int64_t>(in.data.size()) / channels;
      const std::int64_t w = image ? in.shape[2] : 1;
      const std::int64_t out_h = (h + 2 * padding - kh) / stride + 1;
      const std::int64_t out_w = (w + 2 * padding - kw) / stride + 1;
      if (image) {
        y.shape = {shape[0], out_h, out_w};
      } else {
        y.shape = in.shape;
        y.shape.back() = shape[0];
      }
      y.data.assign(static_cast<std::size_t>(shape[0] * out_h * out_w), {});
      const double winograd =
          image && runs_winograd(h, w, shape, stride, padding, weight) ? winograd_error(channels) : 0;
      double largest = 0;  // |x|, of all inputs
      for (const Bounded& value : in.data) {
        largest = std::max(largest, std::fabs(value.value) + value.error);
      }
      for (std::int64_t o = 0; o < shape[0]; ++o) {
        for (std::int64_t row = 0; row < out_h; ++row) {
          for (std::int64_t column = 0; column < out_w; ++column) {
            Sum sum(image ? product_error : 0);
            for (std::int64_t c = 0; c < channels; ++c) {
              for (std::int64_t i = 0; i < kh * kw; ++i) {
                const std::int64_t r = row * stride + i / kw - padding;
                const std::int64_t q = column * stride + i % kw - padding;
                if (r >= 0 && r < h && q >= 0 && q < w) {
                  const std::int64_t at = image ? (c * h + r) * w + q : r * channels + c;
                  sum.add(
                      static_cast<double>(weight[static_cast<std::size_t>((o * channels + c) * kh * kw + i)]),
                      in.data[static_cast<std::size_t>(at)]);
                }
              }
            }
            const std::int64_t to = image ? (o * out_h + row) * out_w + column : row * shape[0] + o;
            Bounded& result = y.data[static_cast<std::size_t>(to)];
            result = sum.result(static_cast<double>(bias[static_cast<std::size_t>(o)]));
            if (winograd != 0) {
              double weights = std::fabs(static_cast<double>(bias[static_cast<std::size_t>(o)]));
              for (std::int64_t i = 0; i < channels * kh * kw; ++i) {
                weights += std::fabs(
                    static_cast<double>(weight[static_cast<std::size_t>(o * channels * kh * kw + i)]));
              }
              result.error += winograd * largest * weights + winograd_underflow(channels);
            }
          }
        }
      }
    } else {
      throw std::logic_error("no reference for " + op);
    }
    values.push_back(std::move(y));
  }
  return values.back().data;
}

std::vector<float> ModelFile::bit_linear_reference(const std::string& name,
                                                   const std::vector<float>& x) const {
  const auto nodes = graph["nodes"];
  const auto node =
      *std::find_if(nodes.begin(), nodes.end(), [&](const auto& n) { return n.value("name", "") == name; });
  const OwnedTensor& weight = const_cast<ModelFile*>(this)->tensor(name + ".weight");
  std::vector<std::uint8_t> codes(weight.data.size());
  std::memcpy(codes.data(), weight.data.data(), codes.size());
  const std::vector<float> scale = floats(name + ".weight_scale");
  const auto optional = [&](const std::string& tensor) {
    return has(tensor) ? floats(tensor) : std::vector<float>{};
  };
  const std::vector<float> g = optional(name + ".norm.weight");
  const std::vector<float> bias = optional(name + ".bias");
  std::vector<float> y(static_cast<std::size_t>(weight.shape[0]));
  const bool grouped = const_cast<ModelFile*>(this)->tensor(name + ".weight_scale").shape.size() == 2;
  const TernaryView view{weight.shape[0], static_cast<std::int64_t>(x.size()), codes, scale,
                         grouped ? std::stoll(metadata.at("trit.group")) : 0};
  bit_linear_row(x, view, node["norm"] == "rms" ? Norm::rms : Norm::none, g, node.value("eps", 1e-6F), bias,
                 y,
                 node.value("token_scale", "token") == "group" ? TokenScaleGranularity::group
                                                               : TokenScaleGranularity::token);
  return y;
}

ModelFile simple_bitnet_cnn(unsigned seed) {
  ModelFile model({3, 32, 32}, seed);
  model.graph["input"]["mean"] = {0.4914, 0.4822, 0.4465};
  model.graph["input"]["std"] = {0.2470, 0.2435, 0.2616};
  std::size_t at = model.relu(model.conv2d("conv1", 0, 3, 32, 3, 1, 1));
  at = model.pool("max_pool2d", at, 2, 2);
  at = model.relu(model.conv2d("conv2", at, 32, 64, 3, 1, 1));
  at = model.flatten(model.pool("max_pool2d", at, 2, 2));
  at = model.relu(model.bit_linear("fc1", at, 4096, 512, Norm::rms));
  model.bit_linear("fc2", at, 512, 10, Norm::rms);
  return model;
}

TemporaryPath::TemporaryPath(const std::string& name) {
  static std::atomic<int> counter{0};
  path_ = std::filesystem::temp_directory_path() /
          ("trit-" + std::to_string(::getpid()) + "-" + std::to_string(counter++) + "-" + name);
}
TemporaryPath::~TemporaryPath() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::byte> read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}
void write_bytes(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace trit::test
