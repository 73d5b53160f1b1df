// SPDX-License-Identifier: MIT
//
// The kernels of a layer's backward by themselves, each arrangement of them, beside the copy bandwidth:
//
//   bench_backward --tokens 2048 --shapes 4096x4096
//   bench_backward --norm                             arrangements of the norm's backward alone
//
// One JSON object a shape on a line: microseconds of each kernel, gradients in bfloat16. Inputs are random; that
// results are right is what the tests show.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "bench/lib/program.h"
#include "common/number_options.h"
#include "cuda/backward/gradient_weight.h"
#include "cuda/data.h"
#include "cuda/gpu.h"
#include "cuda/norm_variants.h"
#include "trit/cuda_backward.h"

namespace trit::bench {
namespace {

std::size_t product_of(std::int64_t a, std::int64_t b) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
}

// Random bfloat16 of -127 .. 127.
DeviceBuffer<std::uint16_t> random_bfloat16(std::size_t count, std::uint64_t seed, cudaStream_t stream) {
  const DeviceBuffer<std::int8_t> integers(count);
  DeviceBuffer<std::uint16_t> values(count);
  random_int8(integers.data(), static_cast<std::int64_t>(count), seed, stream);
  convert(integers.data(), static_cast<std::int64_t>(count), Element::bfloat16, values.data(), stream);
  check(cudaStreamSynchronize(stream), "random values");
  return values;
}

class Measurement {
 public:
  Measurement(cudaStream_t stream, double settle) : stream_(stream), settle_(settle) {}
  template <typename Record>
  void add(std::string name, const Record& record) {
    names_.push_back(std::move(name));
    graphs_.emplace_back(stream_, 10, [&](int) { record(); });
  }
  void print(LinearShape shape, std::int64_t tokens) {
    const std::vector<double> times = time_graphs(stream_, graphs_, 5, settle_);
    std::printf("{\"tokens\": %lld, \"out_features\": %lld, \"in_features\": %lld",
                static_cast<long long>(tokens), static_cast<long long>(shape.out_features),
                static_cast<long long>(shape.in_features));
    for (std::size_t i = 0; i < names_.size(); ++i) {
      std::printf(", \"%s\": %.1f", names_[i].c_str(), times[i]);
    }
    std::printf("}\n");
    std::fflush(stdout);
  }

 private:
  cudaStream_t stream_;
  double settle_;
  std::vector<std::string> names_;
  std::vector<Graph> graphs_;
};

std::vector<std::uint16_t> host_of(const DeviceBuffer<std::uint16_t>& buffer) {
  std::vector<std::uint16_t> values(buffer.size());
  check(cudaMemcpy(values.data(), buffer.data(), buffer.bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return values;
}

// The norm's backward in each arrangement, after a check that dx has the bits of the default one.
void measure_norm(const cuda::Device& device, std::int64_t inputs, std::int64_t tokens, double settle,
                  cudaStream_t stream) {
  const auto x = random_bfloat16(product_of(tokens, inputs), 2, stream);
  const auto u = random_bfloat16(product_of(tokens, inputs), 3, stream);
  const DeviceBuffer<std::uint16_t> grad_x(product_of(tokens, inputs));
  const DeviceBuffer<float> rstd(static_cast<std::size_t>(tokens));
  random_float(rstd.data(), tokens, 0.5F, 1.5F, 5, stream);
  const DeviceBuffer<float> norm_weight(static_cast<std::size_t>(inputs));
  random_float(norm_weight.data(), inputs, 0.5F, 1.5F, 7, stream);
  const std::vector<NormVariant> variants = norm_backward_variants(tokens, inputs);
  const std::int64_t parts = cuda::norm_backward_parts(tokens, inputs);
  std::int64_t most_parts = parts;
  for (const NormVariant& variant : variants) {
    most_parts = std::max(most_parts, variant.parts);
  }
  const DeviceBuffer<float> grad_norm_weight(product_of(most_parts, inputs));
  const auto arguments = [&](std::int64_t parts) {
    return cuda::NormBackward{.grad = u.data(),
                              .x = x.data(),
                              .type = DataType::bfloat16,
                              .tokens = tokens,
                              .in_features = inputs,
                              .norm_weight = norm_weight.data(),
                              .rstd = rstd.data(),
                              .grad_x = grad_x.data(),
                              .grad_norm_weight = grad_norm_weight.data(),
                              .parts = parts};
  };
  Measurement measurement(stream, settle);
  measurement.add("copy_4MK_bytes", [&] {
    check(cudaMemcpyAsync(grad_x.data(), x.data(), x.bytes(), cudaMemcpyDeviceToDevice, stream), "a copy");
  });
  measurement.add("norm_backward", [&] { cuda::norm_backward(device, arguments(parts), stream); });
  cuda::norm_backward(device, arguments(parts), stream);
  check(cudaStreamSynchronize(stream), "norm_backward");
  const std::vector<std::uint16_t> wanted = host_of(grad_x);
  for (const NormVariant& variant : variants) {
    grad_x.fill_bytes(0xff);
    variant.run(arguments(variant.parts), stream);
    check(cudaStreamSynchronize(stream), variant.name.c_str());
    if (host_of(grad_x) != wanted) {
      throw Error(variant.name + ": dx differs");
    }
    measurement.add(variant.name, [&, variant] { variant.run(arguments(variant.parts), stream); });
  }
  measurement.print({inputs, inputs}, tokens);
}

void measure(const cuda::Device& device, LinearShape shape, std::int64_t tokens, double settle,
             cudaStream_t stream) {
  const std::int64_t outputs = shape.out_features;
  const std::int64_t inputs = shape.in_features;
  const auto grad = random_bfloat16(product_of(tokens, outputs), 1, stream);
  const auto x = random_bfloat16(product_of(tokens, inputs), 2, stream);
  const auto u = random_bfloat16(product_of(tokens, inputs), 3, stream);
  const DeviceBuffer<std::uint16_t> grad_x(product_of(tokens, inputs));
  const DeviceBuffer<std::int8_t> q(product_of(tokens, cuda::quantized_row_bytes(inputs)));
  random_int8(q.data(), static_cast<std::int64_t>(q.size()), 4, stream);
  const DeviceBuffer<float> token_scale(static_cast<std::size_t>(tokens));
  random_float(token_scale.data(), tokens, 0.5F, 1.5F, 5, stream);
  const DeviceBuffer<float> beta(1);
  random_float(beta.data(), 1, 0.5F, 1.5F, 6, stream);
  const DeviceBuffer<float> norm_weight(static_cast<std::size_t>(inputs));
  random_float(norm_weight.data(), inputs, 0.5F, 1.5F, 7, stream);
  const DeviceBuffer<std::int8_t> t(product_of(outputs, inputs));
  random_ternary(t.data(), static_cast<std::int64_t>(t.size()), 8, stream);
  const DeviceBuffer<std::uint8_t> codes(product_of(outputs, packed_row_bytes(inputs)));
  pack_codes(t.data(), outputs, inputs, codes.data(), stream);
  const DeviceBuffer<std::uint8_t> weights(cuda::transposed_weight_bytes(outputs, inputs));
  const DeviceBuffer<std::uint8_t> weights_int8(cuda::weight_bytes(inputs, outputs));
  const DeviceBuffer<std::int8_t> grad_rows(product_of(tokens, cuda::quantized_row_bytes(outputs)));
  const DeviceBuffer<float> grad_scale(static_cast<std::size_t>(tokens));
  const DeviceBuffer<std::uint32_t> maxima(static_cast<std::size_t>(outputs));
  maxima.fill_bytes(0);
  const DeviceBuffer<std::int8_t> grad_columns(product_of(outputs, cuda::gradient_row_bytes(tokens)));
  const DeviceBuffer<float> output_scale(static_cast<std::size_t>(outputs));
  const DeviceBuffer<std::int8_t> tiles(cuda::transposed_activation_bytes(tokens, inputs));
  const DeviceBuffer<float> grad_weight(product_of(outputs, inputs));
  const std::int64_t parts = cuda::norm_backward_parts(tokens, inputs);
  const DeviceBuffer<float> grad_norm_weight(product_of(parts, inputs));
  const DeviceBuffer<std::uint8_t> workspace(cuda::product_workspace_bytes(device, tokens, inputs, outputs));
  workspace.fill_bytes(0);
  check(cudaStreamSynchronize(stream), "operands");

  Measurement measurement(stream, settle);
  measurement.add("copy_4MK_bytes", [&] {
    check(cudaMemcpyAsync(grad_x.data(), x.data(), x.bytes(), cudaMemcpyDeviceToDevice, stream), "a copy");
  });
  const cuda::NormBackward norm{.grad = u.data(),
                                .x = x.data(),
                                .type = DataType::bfloat16,
                                .tokens = tokens,
                                .in_features = inputs,
                                .norm_weight = norm_weight.data(),
                                .rstd = token_scale.data(),
                                .grad_x = grad_x.data(),
                                .grad_norm_weight = grad_norm_weight.data(),
                                .parts = parts};
  measurement.add("norm_backward", [&] { cuda::norm_backward(device, norm, stream); });
  const cuda::GradientRows rows{.grad = grad.data(),
                                .type = DataType::bfloat16,
                                .tokens = tokens,
                                .out_features = outputs,
                                .q = grad_rows.data(),
                                .scale = grad_scale.data()};
  measurement.add("quantize_rows", [&] { cuda::quantize_gradient_rows(device, rows, stream); });
  cuda::GradientRows both = rows;
  both.token_scale = token_scale.data();
  both.maxima = maxima.data();
  measurement.add("quantize_rows_and_maxima", [&] { cuda::quantize_gradient_rows(device, both, stream); });
  cuda::GradientRows random = both;
  random.rounding = {.stochastic = true, .seed = 1};
  measurement.add("quantize_rows_at_random", [&] { cuda::quantize_gradient_rows(device, random, stream); });
  measurement.add("quantize_outputs", [&] {
    cuda::quantize_gradient_outputs({.grad = grad.data(),
                                     .type = DataType::bfloat16,
                                     .tokens = tokens,
                                     .out_features = outputs,
                                     .token_scale = token_scale.data(),
                                     .maxima = maxima.data(),
                                     .q = grad_columns.data(),
                                     .scale = output_scale.data()},
                                    stream);
  });
  measurement.add("transpose_activations", [&] {
    cuda::transpose_activations({.q = q.data(),
                                 .row_bytes = cuda::quantized_row_bytes(inputs),
                                 .tokens = tokens,
                                 .in_features = inputs,
                                 .tiles = true,
                                 .transposed = tiles.data()},
                                stream);
  });
  measurement.add("prepare_transposed",
                  [&] { cuda::prepare_transposed(codes.data(), outputs, inputs, weights.data(), stream); });
  measurement.add("prepare_transposed_int8", [&] {
    cuda::prepare_transposed_int8(codes.data(), outputs, inputs, weights_int8.data(), stream);
  });
  const cuda::GradientInput exact{.grad = grad.data(),
                                  .type = DataType::bfloat16,
                                  .tokens = tokens,
                                  .out_features = outputs,
                                  .in_features = inputs,
                                  .weights = weights.data(),
                                  .scale = beta.data(),
                                  .grad_x = grad_x.data()};
  if (cuda::gradient_input_fits(device, exact)) {
    measurement.add("gradient_input", [&] { cuda::gradient_input(device, exact, stream); });
  }
  measurement.add("gradient_input_int8", [&] {
    cuda::product(device,
                  {.weights = weights_int8.data(),
                   .out_features = inputs,
                   .in_features = outputs,
                   .q = grad_rows.data(),
                   .token_scale = grad_scale.data(),
                   .tokens = tokens,
                   .weight_scale = beta.data(),
                   .y_type = DataType::bfloat16,
                   .y = grad_x.data(),
                   .workspace = workspace.data()},
                  stream);
  });
  if (cuda::gradient_weight_fits(device)) {
    const cuda::GradientWeight product{.grad = grad_columns.data(),
                                       .scale = output_scale.data(),
                                       .tiles = tiles.data(),
                                       .tokens = tokens,
                                       .out_features = outputs,
                                       .in_features = inputs,
                                       .type = DataType::float32,
                                       .grad_weight = grad_weight.data()};
    measurement.add("gradient_weight", [&] { cuda::gradient_weight(device, product, stream); });
    for (const auto& [tile_rows, tile_outputs] : {std::pair{128, 256}, {256, 128}, {128, 192}, {128, 128}}) {
      measurement.add("gradient_weight_" + std::to_string(tile_rows) + "x" + std::to_string(tile_outputs),
                      [&] { cuda::gradient_weight(device, product, tile_rows, tile_outputs, stream); });
    }
  }
  measurement.print(shape, tokens);
}

}  // namespace

int run(int argc, char** argv) {
  std::int64_t tokens = 16384;
  double settle = 120;
  std::vector<LinearShape> shapes{{2560, 2560}, {4096, 4096}, {14336, 4096}, {4096, 14336}, {8192, 8192}};
  CommandLine app{"Times the kernels of a layer's backward on a GPU, each arrangement of them.",
                  "bench_backward --tokens 2048 --shapes 4096x4096"};
  app.add_option("--tokens", tokens, "rows of the gradient")->type_name("N")->check(apps::whole_number(1));
  app.add_settle(settle, "milliseconds of the same work before each timing");
  app.add_shapes(shapes);
  bool norm = false;
  app.add_flag("--norm", norm, "time every arrangement of the norm's backward, and nothing else");
  CLI11_PARSE(app, argc, argv);
  const cuda::Device device = cuda::device_info(0);
  const OwnStream stream;
  for (const LinearShape shape : shapes) {
    norm ? measure_norm(device, shape.in_features, tokens, settle, stream.get())
         : measure(device, shape, tokens, settle, stream.get());
  }
  return 0;
}

}  // namespace trit::bench
