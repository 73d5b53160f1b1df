// SPDX-License-Identifier: MIT
//
// One product for the tests of the Hopper GEMM: random or extreme inputs, and the outputs that the contract
// asks for.
#pragma once

#include <bit>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "cuda/support.h"
#include "trit/format.h"
#include "trit/quantize.h"

namespace trit::test {

struct Shape {
  std::int64_t tokens;
  std::int64_t out_features;
  std::int64_t in_features;
  DataType y_type = DataType::bfloat16;
  bool bias = true;
  bool scale_per_row = true;
  std::int64_t y_offset = 0;  // elements from an aligned address to y
  bool programmatic = false;
};

inline std::string text_of(const Shape& shape) {
  return "M = " + std::to_string(shape.tokens) + ", N = " + std::to_string(shape.out_features) +
         ", K = " + std::to_string(shape.in_features) + ", " + std::string(name_of(shape.y_type)) +
         (shape.bias ? ", bias" : "") + (shape.scale_per_row ? ", scale per row" : "");
}

class Problem {
 public:
  enum class Codes : std::uint8_t { random, largest };  // largest: every sum is +-128 K

  Problem(const Shape& shape, std::mt19937_64& random, Codes codes = Codes::random)
      : shape_(shape),
        q_stride_(cuda::quantized_row_bytes(shape.in_features)),
        t_(static_cast<std::size_t>(shape.out_features * shape.in_features)),
        q_(static_cast<std::size_t>(shape.tokens * q_stride_)),
        token_scales_(static_cast<std::size_t>(shape.tokens)),
        weight_scales_(static_cast<std::size_t>(shape.scale_per_row ? shape.out_features : 1)),
        bias_(static_cast<std::size_t>(shape.out_features)),
        weights_(static_cast<std::size_t>((shape.out_features + 63) / 64 * ((shape.in_features + 127) / 128) *
                                          2048)),
        y_bytes_(static_cast<std::size_t>(shape.y_offset + shape.tokens * shape.out_features) *
                 size_of(shape.y_type)) {
    std::uniform_int_distribution<int> trit(-1, 1);
    std::uniform_int_distribution<int> code(-128, 127);
    std::uniform_real_distribution<float> real(-2.0F, 2.0F);
    for (std::int64_t row = 0; row < shape.out_features; ++row) {
      for (std::int64_t k = 0; k < shape.in_features; ++k) {
        t_[static_cast<std::size_t>(row * shape.in_features + k)] =
            static_cast<std::int8_t>(codes == Codes::random ? trit(random) : row % 2 * 2 - 1);
      }
    }
    // What lies behind in_features is anything: the kernel must not use it.
    for (std::int8_t& q : q_) {
      q = static_cast<std::int8_t>(codes == Codes::random ? code(random) : -128);
    }
    for (float& s : token_scales_) {
      s = real(random);
    }
    for (float& beta : weight_scales_) {
      beta = real(random);
    }
    for (float& b : bias_) {
      b = real(random);
    }
    pack_weights();
  }

  void set_token_scale(std::int64_t token, float scale) {
    token_scales_[static_cast<std::size_t>(token)] = scale;
  }

  /// Arguments on the device, with a y that no kernel has written.
  cuda::Product args() {
    const std::vector<std::uint8_t> poison(y_bytes_, 0xA5);
    device_.emplace(Arrays{DeviceArray<std::int8_t>(q_), DeviceArray<float>(token_scales_),
                           DeviceArray<float>(weight_scales_), DeviceArray<float>(bias_),
                           DeviceArray<std::uint8_t>(weights_), DeviceArray<std::uint8_t>(poison)});
    return {.weights = device_->weights.data(),
            .out_features = shape_.out_features,
            .in_features = shape_.in_features,
            .q = device_->q.data(),
            .token_scale = device_->token_scales.data(),
            .tokens = shape_.tokens,
            .weight_scale = device_->weight_scales.data(),
            .granularity = shape_.scale_per_row ? ScaleGranularity::row : ScaleGranularity::tensor,
            .bias = shape_.bias ? device_->bias.data() : nullptr,
            .y_type = shape_.y_type,
            .y = device_->y.data() + static_cast<std::size_t>(shape_.y_offset) * size_of(shape_.y_type),
            .programmatic = shape_.programmatic};
  }

  // "" or the first difference.
  std::string difference() {
    if (expected_.empty()) {
      expect();
    }
    if (!device_.has_value()) {
      return "nothing was launched";
    }
    const std::vector<std::uint8_t> y = values_of(device_->y);
    for (std::int64_t i = 0; i < shape_.tokens * shape_.out_features; ++i) {
      const std::uint32_t found = output(y, shape_.y_offset + i);
      const std::uint32_t wanted = expected_[static_cast<std::size_t>(i)];
      if (found != wanted && !(is_nan(found) && is_nan(wanted))) {
        return "token " + std::to_string(i / shape_.out_features) + ", row " +
               std::to_string(i % shape_.out_features) + ": found bits " + std::to_string(found) +
               ", wanted " + std::to_string(wanted);
      }
    }
    for (std::int64_t i = 0; i < shape_.y_offset; ++i) {
      if (output(y, i) != (shape_.y_type == DataType::float32 ? 0xA5A5A5A5U : 0xA5A5U)) {
        return "an element before y was written";
      }
    }
    return {};
  }

 private:
  struct Arrays {
    DeviceArray<std::int8_t> q;
    DeviceArray<float> token_scales;
    DeviceArray<float> weight_scales;
    DeviceArray<float> bias;
    DeviceArray<std::uint8_t> weights;
    DeviceArray<std::uint8_t> y;
  };

  // design: tile of 64 rows x 128 inputs = 4 strips of 16 rows x 32 lanes x 4 words, a word per 32 inputs.
  void pack_weights() {
    const std::int64_t k_tiles = (shape_.in_features + 127) / 128;
    for (std::int64_t row = 0; row < shape_.out_features; ++row) {
      for (std::int64_t k = 0; k < shape_.in_features; ++k) {
        const std::int64_t lane = row % 8 * 4 + k % 16 / 4;
        const std::int64_t fragment_register = row % 16 / 8 + k % 32 / 16 * 2;
        const std::int64_t byte = (row / 64 * k_tiles + k / 128) * 2048 + row % 64 / 16 * 512 + lane * 16 +
                                  k % 128 / 32 * 4 + k % 4;
        const auto code =
            static_cast<std::uint8_t>(t_[static_cast<std::size_t>(row * shape_.in_features + k)] & 3);
        weights_[static_cast<std::size_t>(byte)] = static_cast<std::uint8_t>(
            weights_[static_cast<std::size_t>(byte)] | code << (6 - 2 * fragment_register));
      }
    }
  }

  void expect() {
    for (std::int64_t token = 0; token < shape_.tokens; ++token) {
      const std::int8_t* q = q_.data() + token * q_stride_;
      for (std::int64_t row = 0; row < shape_.out_features; ++row) {
        const std::int8_t* t = t_.data() + row * shape_.in_features;
        std::int32_t acc = 0;
        for (std::int64_t k = 0; k < shape_.in_features; ++k) {
          acc += q[k] * t[k];
        }
        const auto r = static_cast<std::size_t>(row);
        const float y =
            epilogue(acc, token_scales_[static_cast<std::size_t>(token)],
                     weight_scales_[shape_.scale_per_row ? r : 0], shape_.bias ? &bias_[r] : nullptr);
        expected_.push_back(shape_.y_type == DataType::float32    ? std::bit_cast<std::uint32_t>(y)
                            : shape_.y_type == DataType::bfloat16 ? std::uint32_t{float_to_bfloat16(y)}
                                                                  : std::uint32_t{float_to_float16(y)});
      }
    }
  }

  std::uint32_t output(const std::vector<std::uint8_t>& y, std::int64_t element) const {
    const auto index = static_cast<std::size_t>(element);
    std::uint32_t bits = 0;
    if (shape_.y_type == DataType::float32) {
      std::memcpy(&bits, y.data() + 4 * index, 4);
    } else {
      std::memcpy(&bits, y.data() + 2 * index, 2);
    }
    return bits;
  }
  bool is_nan(std::uint32_t bits) const {
    switch (shape_.y_type) {
      case DataType::float32:
        return (bits & 0x7FFFFFFFU) > 0x7F800000U;
      case DataType::bfloat16:
        return (bits & 0x7FFFU) > 0x7F80U;
      case DataType::float16:
        return (bits & 0x7FFFU) > 0x7C00U;
    }
    return false;
  }

  Shape shape_;
  std::int64_t q_stride_;
  std::vector<std::int8_t> t_;
  std::vector<std::int8_t> q_;
  std::vector<float> token_scales_;
  std::vector<float> weight_scales_;
  std::vector<float> bias_;
  std::vector<std::uint8_t> weights_;
  std::size_t y_bytes_;
  std::optional<Arrays> device_;
  std::vector<std::uint32_t> expected_;
};

}  // namespace trit::test
