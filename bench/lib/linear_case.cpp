// SPDX-License-Identifier: MIT
#include "bench/lib/linear_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <random>

#include "trit/error.h"
#include "trit/quantize.h"

namespace trit::bench {
namespace {

// Sums are 32-bit (linear.h).
constexpr std::int64_t kLargest = 16'777'215;

// A whole number 1..kLargest at the start of `text`, which it is taken off.
std::int64_t take_number(std::string_view& text, std::string_view all) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 1 || value > kLargest) {
    throw Error(fmt::format("'{}': wanted NxK (outputs x inputs), numbers from 1 to {}", all, kLargest));
  }
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

// Weights are drawn 40 at a time: 3^40 < 2^64.
constexpr int kTritsPerDraw = 40;

void draw_weights(std::mt19937_64& random, std::vector<std::int8_t>& t) {
  std::uint64_t draw = 0;
  int left = 0;
  for (std::int8_t& value : t) {
    if (left == 0) {
      draw = random();
      left = kTritsPerDraw;
    }
    value = static_cast<std::int8_t>(static_cast<int>(draw % 3) - 1);
    draw /= 3;
    --left;
  }
}

void add_groups(LinearCase& layer, std::int64_t group, std::mt19937_64& random, Parallel& parallel) {
  const std::int64_t inputs = layer.shape.in_features;
  const std::int64_t outputs = layer.shape.out_features;
  const std::int64_t groups = groups_of(inputs, group);
  const std::int64_t distinct = std::min(layer.tokens, kDistinctTokens);
  layer.grouped = {outputs, inputs, layer.weight.codes, {}, group};
  layer.grouped.scale.resize(static_cast<std::size_t>(outputs * groups));
  std::ranges::generate(layer.grouped.scale, [&] {
    constexpr std::uint64_t kOne = 0x3c00;  // as float16; 1 to 2 here
    return float16_to_float(static_cast<std::uint16_t>(kOne + random() % 1024));
  });
  layer.grouped_y.resize(static_cast<std::size_t>(distinct * outputs));
  parallel.run(outputs, [&](std::int64_t row) {
    const std::span t(layer.t.data() + row * inputs, static_cast<std::size_t>(inputs));
    const std::span beta(layer.grouped.scale.data() + row * groups, static_cast<std::size_t>(groups));
    for (std::int64_t token = 0; token < distinct; ++token) {
      layer.grouped_y[static_cast<std::size_t>(token * outputs + row)] =
          group_product({layer.q.data() + token * padded_in_features(inputs), t.size()}, t, group, beta,
                        layer.scale[static_cast<std::size_t>(token)], nullptr, nullptr);
    }
  });
}

}  // namespace

std::string name_of(LinearShape shape) { return fmt::format("{}x{}", shape.out_features, shape.in_features); }

LinearShape shape_from_name(std::string_view name) {
  std::string_view rest = name;
  const std::int64_t out_features = take_number(rest, name);
  const bool crossed = rest.starts_with('x');
  rest.remove_prefix(crossed ? 1 : 0);
  const std::int64_t in_features = crossed ? take_number(rest, name) : 0;
  if (!crossed || !rest.empty()) {
    throw Error(fmt::format("'{}': wanted NxK (outputs x inputs)", name));
  }
  return {out_features, in_features};
}

LinearCase make_linear_case(LinearShape shape, std::int64_t tokens, std::uint64_t seed, Parallel& parallel,
                            std::int64_t group) {
  std::mt19937_64 random(seed);
  const std::int64_t inputs = shape.in_features;
  const std::int64_t padded = padded_in_features(inputs);
  const std::int64_t row_bytes = packed_row_bytes(inputs);
  const std::int64_t distinct = std::min(tokens, kDistinctTokens);
  LinearCase layer{shape, tokens, {}, {shape.out_features, inputs, {}, {0.037F}}, {}, {}, {}, {}, {},
                   {},    {},     {}};
  layer.t.resize(static_cast<std::size_t>(shape.out_features * inputs));
  draw_weights(random, layer.t);
  layer.weight.codes.resize(static_cast<std::size_t>(shape.out_features * row_bytes));

  layer.q.resize(static_cast<std::size_t>(tokens * padded));
  layer.scale.assign(static_cast<std::size_t>(tokens), 0.011F);
  layer.q_sum.resize(static_cast<std::size_t>(tokens));
  layer.acc.resize(static_cast<std::size_t>(distinct * shape.out_features));
  for (std::int64_t token = 0; token < tokens; ++token) {
    std::int8_t* q = layer.q.data() + token * padded;
    std::int32_t& sum = layer.q_sum[static_cast<std::size_t>(token)];
    if (token >= distinct) {
      std::copy_n(q - distinct * padded, padded, q);
      sum = layer.q_sum[static_cast<std::size_t>(token - distinct)];
      continue;
    }
    for (std::int64_t k = 0; k < inputs; ++k) {
      q[k] = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
      sum += q[k];
    }
  }
  std::normal_distribution<float> normal;
  layer.x.resize(static_cast<std::size_t>(tokens * inputs));
  const auto drawn = static_cast<std::ptrdiff_t>(distinct * inputs);
  std::generate_n(layer.x.begin(), drawn, [&] { return normal(random); });
  for (auto at = drawn; at < static_cast<std::ptrdiff_t>(layer.x.size()); ++at) {
    layer.x[static_cast<std::size_t>(at)] = layer.x[static_cast<std::size_t>(at - drawn)];
  }
  layer.norm_weight.resize(static_cast<std::size_t>(inputs));
  std::generate(layer.norm_weight.begin(), layer.norm_weight.end(), [&] { return 1 + normal(random) / 8; });

  parallel.run(shape.out_features, [&](std::int64_t row) {
    const std::int8_t* weights = layer.t.data() + row * inputs;
    pack_row({weights, static_cast<std::size_t>(inputs)},
             {layer.weight.codes.data() + row * row_bytes, static_cast<std::size_t>(row_bytes)});
    for (std::int64_t token = 0; token < distinct; ++token) {
      const std::int8_t* q = layer.q.data() + token * padded;
      std::int32_t sum = 0;
      for (std::int64_t k = 0; k < inputs; ++k) {
        sum += q[k] * weights[k];
      }
      layer.acc[static_cast<std::size_t>(token * shape.out_features + row)] = sum;
    }
  });
  if (group != 0) {
    add_groups(layer, group, random, parallel);
  }
  return layer;
}

void check_outputs(const LinearCase& layer, std::int64_t tokens, std::span<const float> y,
                   std::string_view who, bool grouped) {
  const std::int64_t outputs = layer.shape.out_features;
  for (std::int64_t token = 0; token < tokens; ++token) {
    for (std::int64_t row = 0; row < outputs; ++row) {
      const float got = y[static_cast<std::size_t>(token * outputs + row)];
      const float wanted =
          grouped ? layer.grouped_y[static_cast<std::size_t>(token % kDistinctTokens * outputs + row)]
                  : epilogue(layer.exact(token, row), layer.scale[static_cast<std::size_t>(token)],
                             layer.weight.scale[0], nullptr);
      if (std::bit_cast<std::uint32_t>(got) != std::bit_cast<std::uint32_t>(wanted)) {
        throw Error(fmt::format("{} {}, {} tokens: output {} of token {} is {}, the reference is {}", who,
                                name_of(layer.shape), tokens, row, token, got, wanted));
      }
    }
  }
}

}  // namespace trit::bench
