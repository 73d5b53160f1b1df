// SPDX-License-Identifier: MIT
#include "cuda/row_kernels.h"

#include <cstdint>
#include <vector>

#include "bench/lib/gpu_read.h"
#include "cuda/data.h"
#include "cuda/gpu.h"

namespace trit::bench {

using nlohmann::ordered_json;

double memory_read_rate(const cuda::Device& device, cudaStream_t stream) {
  const DeviceBuffer<std::uint8_t> data(bytes_to_read());
  const DeviceBuffer<std::uint8_t> sink(16);
  std::vector<Graph> graphs;
  graphs.emplace_back(stream, 4, [&](int) {
    read_on_gpu(data.data(), data.size(), sink.data(), device.multiprocessors, stream);
  });
  return static_cast<double>(data.size()) / time_graphs(stream, graphs, 9)[0] / 1e3;
}

ordered_json measure_row_kernels(const cuda::Device& device, double memory_read, int rounds,
                                 cudaStream_t stream) {
  constexpr std::int64_t kInputs = 8192;
  constexpr std::int64_t kRows = 16384;
  const auto count = static_cast<std::size_t>(kInputs * kRows);
  const DeviceBuffer<float> w(static_cast<std::size_t>(kInputs * kInputs));
  const DeviceBuffer<std::uint16_t> x(count);
  const DeviceBuffer<std::int8_t> q(count);
  const DeviceBuffer<std::uint8_t> codes(w.size() / 4);
  const DeviceBuffer<float> scale(static_cast<std::size_t>(kRows));
  const DeviceBuffer<std::uint8_t> workspace(cuda::absmean_workspace_bytes(kInputs));
  random_float(w.data(), kInputs * kInputs, -1.0F, 1.0F, 8, stream);
  random_int8(q.data(), static_cast<std::int64_t>(count), 9, stream);
  convert(q.data(), static_cast<std::int64_t>(count), Element::bfloat16, x.data(), stream);
  const auto norm = [&](std::int64_t tokens) {
    return cuda::NormQuant{.x = x.data(),
                           .x_type = DataType::bfloat16,
                           .tokens = tokens,
                           .in_features = kInputs,
                           .x_stride = kInputs,
                           .norm = Norm::rms,
                           .q = q.data(),
                           .scale = scale.data()};
  };
  std::vector<Graph> graphs;
  graphs.emplace_back(stream, 4, [&](int) { cuda::norm_quant(device, norm(kRows), stream); });
  graphs.emplace_back(stream, 128, [&](int) { cuda::norm_quant(device, norm(1), stream); });
  graphs.emplace_back(stream, 4, [&](int) {
    cuda::absmean(w.data(), kInputs, kInputs, ScaleGranularity::tensor, scale.data(), workspace.data(),
                  stream);
    cuda::ternarize_pack(w.data(), kInputs, kInputs, ScaleGranularity::tensor, scale.data(), codes.data(),
                         stream);
  });
  const std::vector<double> times = time_graphs(stream, graphs, 4 * rounds);
  const double norm_rate = static_cast<double>(count) * 3 / times[0] / 1e3;
  const double pack_rate = static_cast<double>(w.size()) * 8.25 / times[2] / 1e3;
  return {{"inputs", kInputs},
          {"norm_quant_tokens", kRows},
          {"norm_quant_gigabytes_per_second", norm_rate},
          {"norm_quant_share_of_read_bandwidth", norm_rate / memory_read},
          {"norm_quant_one_token_microseconds", times[1]},
          {"ternarize_pack_microseconds", times[2]},
          {"ternarize_pack_gigabytes_per_second", pack_rate},
          {"ternarize_pack_share_of_read_bandwidth", pack_rate / memory_read}};
}

}  // namespace trit::bench
