// SPDX-License-Identifier: MIT
//
// Arrangements of the norm's backward, each checked against the present kernel.
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "bench/lib/gpu_timing.h"
#include "cuda/backward/norm_columns.cuh"
#include "cuda/backward/norm_lanes.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/gpu.h"

namespace trit::cuda {
namespace {

struct Variant {
  std::string name;
  std::int64_t features;
  std::int64_t parts;  // at many tokens
  int rows_at_once;    // of a part
  std::function<void(const NormBackward&, Stream)> run;
};

constexpr DataType kBf16 = DataType::bfloat16;

template <int kHeld, int kSteps, int kTeams, int kBlocks, bool kAhead, bool kShared, bool kInterleave,
          int kHint>
Variant lanes(std::int64_t features) {
  const auto run = [](const NormBackward& a, Stream stream) {
    const auto k = static_cast<unsigned>(a.in_features);
    const unsigned head = kHeld == 8 ? 0 : 2 * kTeams * kLanes;
    const unsigned floats = std::max(head + (kShared ? k : 0), kTeams * k);
    launch<
        norm_lanes_kernel<kBf16, true, kHeld, kSteps, kTeams, kBlocks, kAhead, kShared, kInterleave, kHint>>(
        "lanes",
        {.grid = {static_cast<unsigned>(a.parts)},
         .block = {kLanes / kHeld * kTeams},
         .shared_bytes = 4 * floats},
        stream, a);
  };
  return {"lanes held=" + std::to_string(kHeld) + " teams=" + std::to_string(kTeams) +
              " blocks=" + std::to_string(kBlocks) + (kAhead ? " ahead" : "") + (kShared ? " shared_g" : "") +
              (kInterleave ? " interleaved" : "") + (kHint ? " hint=" + std::to_string(kHint) : ""),
          features, std::int64_t{132} * kBlocks, kTeams, run};
}

template <int kSteps, int kStages, int kThreads, int kBlocks, bool kInterleave>
Variant columns(std::int64_t features) {
  const auto run = [](const NormBackward& a, Stream stream) {
    const auto k = static_cast<int>(a.in_features);
    const unsigned bytes =
        4 * (2 * static_cast<unsigned>(plane_floats(k)) + 2 * kLanes) + kStages * kSteps * 2 * kThreads * 16;
    launch<norm_columns_kernel<kBf16, true, kSteps, kStages, kThreads, kBlocks, kInterleave>>(
        "columns", {.grid = {static_cast<unsigned>(a.parts)}, .block = {kThreads}, .shared_bytes = bytes},
        stream, a);
  };
  return {"columns threads=" + std::to_string(kThreads) + " steps=" + std::to_string(kSteps) +
              " stages=" + std::to_string(kStages) + " blocks=" + std::to_string(kBlocks) +
              (kInterleave ? " interleaved" : ""),
          features, std::int64_t{132} * kBlocks, 1, run};
}

std::vector<Variant> variants() {
  return {
      lanes<2, 10, 4, 2, true, true, false, 0>(2560),
      lanes<2, 10, 4, 2, true, true, true, 0>(2560),
      lanes<2, 10, 4, 2, true, true, true, 1>(2560),
      lanes<2, 10, 4, 2, true, true, true, 2>(2560),
      lanes<2, 10, 4, 2, true, true, true, 3>(2560),
      lanes<2, 10, 8, 1, true, true, true, 0>(2560),
      lanes<2, 10, 8, 1, false, true, true, 0>(2560),
      lanes<4, 10, 8, 1, true, true, true, 0>(2560),
      lanes<4, 10, 4, 2, true, true, true, 0>(2560),
      lanes<2, 10, 3, 2, true, true, true, 0>(2560),
      columns<1, 2, 320, 3, true>(2560),

      lanes<4, 16, 6, 1, true, true, false, 0>(4096),
      lanes<4, 16, 6, 1, true, true, true, 0>(4096),
      lanes<4, 16, 6, 1, true, true, true, 1>(4096),
      lanes<4, 16, 6, 1, true, true, true, 2>(4096),
      lanes<4, 16, 6, 1, true, true, true, 3>(4096),
      lanes<4, 16, 3, 2, true, true, true, 0>(4096),
      lanes<2, 16, 5, 1, true, true, true, 0>(4096),
      lanes<2, 16, 5, 1, true, true, true, 3>(4096),
      lanes<2, 16, 2, 2, true, true, true, 0>(4096),
      columns<1, 2, 512, 2, true>(4096),

      lanes<2, 32, 3, 1, true, false, true, 0>(8192),
      lanes<2, 32, 3, 1, true, true, true, 3>(8192),
      columns<1, 2, 1024, 1, true>(8192),
      columns<4, 0, 256, 2, true>(8192),
      columns<4, 0, 256, 2, false>(8192),
      columns<2, 2, 512, 2, true>(8192),
      columns<4, 1, 256, 2, true>(8192),

      columns<4, 0, 448, 1, true>(14336),
      columns<4, 0, 448, 1, false>(14336),
      columns<2, 0, 896, 1, true>(14336),
      columns<4, 1, 448, 1, true>(14336),
  };
}

/// The parts added up, a column a thread, eight parts at a time.
__global__ void sum_parts_kernel(const float* partial, int parts, int features, float* out) {
  auto* const shared = reinterpret_cast<float*>(dynamic_shared());
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int k = static_cast<int>(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (k < features) {
#pragma unroll 8
    for (int p = warp; p < parts; p += 16) {
      sum = __fadd_rn(sum, partial[static_cast<std::int64_t>(p) * features + k]);
    }
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp == 0 && k < features) {
    for (int i = 1; i < 16; ++i) {
      sum = __fadd_rn(sum, shared[32 * i + lane]);
    }
    out[k] = sum;
  }
}

__global__ void fill_kernel(std::uint16_t* to, std::int64_t count, unsigned seed) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    unsigned h = static_cast<unsigned>(i) * 2654435761U + seed;
    h ^= h >> 15U;
    h *= 2246822519U;
    h ^= h >> 13U;
    h *= 3266489917U;
    h ^= h >> 16U;
    to[i] = ptx::to_bfloat16((static_cast<float>(h >> 8U) * 0x1p-24F - 0.5F) * 4.0F);
  }
}

template <typename Value>
std::vector<Value> to_host(const bench::DeviceBuffer<Value>& buffer, std::size_t count) {
  std::vector<Value> host(count);
  bench::check(cudaMemcpy(host.data(), buffer.data(), count * sizeof(Value), cudaMemcpyDeviceToHost), "copy");
  return host;
}

std::int64_t parts_of(const Variant& v, std::int64_t tokens) {
  return std::clamp<std::int64_t>(tokens / (2 * v.rows_at_once), 1, v.parts);
}

}  // namespace
}  // namespace trit::cuda

int main() {
  using namespace trit::cuda;
  using trit::bench::DeviceBuffer;
  const trit::bench::OwnStream own;
  cudaStream_t stream = own.get();
  constexpr std::int64_t kRows = 16384;
  int wrong_variants = 0;
  for (const std::int64_t features : {2560, 4096, 8192, 14336}) {
    const auto count = static_cast<std::size_t>(kRows * features);
    const DeviceBuffer<std::uint16_t> u(count);
    const DeviceBuffer<std::uint16_t> x(count);
    const DeviceBuffer<std::uint16_t> dx(count);
    const DeviceBuffer<std::uint16_t> expected(count);
    const DeviceBuffer<float> g(static_cast<std::size_t>(features));
    const DeviceBuffer<float> rstd(kRows);
    const DeviceBuffer<float> partial(static_cast<std::size_t>(1024 * features));
    const DeviceBuffer<float> sum(static_cast<std::size_t>(features));
    fill_kernel<<<1024, 256, 0, stream>>>(u.data(), kRows * features, 1);
    fill_kernel<<<1024, 256, 0, stream>>>(x.data(), kRows * features, 2);
    std::vector<float> host(static_cast<std::size_t>(features));
    for (std::size_t i = 0; i < host.size(); ++i) {
      host[i] = 0.5F + static_cast<float>(i * 37 % 101) / 101;
    }
    cudaMemcpy(g.data(), host.data(), 4 * host.size(), cudaMemcpyHostToDevice);
    host.resize(kRows);
    for (std::size_t i = 0; i < host.size(); ++i) {
      host[i] = 0.7F + static_cast<float>(i * 53 % 97) / 97;
    }
    cudaMemcpy(rstd.data(), host.data(), 4 * host.size(), cudaMemcpyHostToDevice);
    for (const std::int64_t tokens : {std::int64_t{2048}, kRows}) {
      const auto args = [&](int launch, std::int64_t parts) {
        const std::int64_t first = launch * tokens % kRows;
        return NormBackward{.grad = u.data() + first * features,
                            .x = x.data() + first * features,
                            .type = trit::DataType::bfloat16,
                            .tokens = tokens,
                            .in_features = features,
                            .norm_weight = g.data(),
                            .rstd = rstd.data() + first,
                            .grad_x = dx.data() + first * features,
                            .grad_norm_weight = partial.data(),
                            .parts = parts};
      };
      const auto reduce = [&](std::int64_t parts) {
        launch<sum_parts_kernel>("sum_parts",
                                 {.grid = {static_cast<unsigned>(ceil_div<std::int64_t>(features, 32))},
                                  .block = {512},
                                  .shared_bytes = 2048},
                                 stream, static_cast<const float*>(partial.data()), static_cast<int>(parts),
                                 static_cast<int>(features), sum.data());
      };
      const std::int64_t parts = norm_backward_parts(tokens);
      NormBackward first = args(0, parts);
      first.grad_x = expected.data();
      norm_backward(first, stream);
      reduce(parts);
      trit::bench::check(cudaStreamSynchronize(stream), "the present kernel");
      const auto right = to_host(expected, static_cast<std::size_t>(tokens * features));
      const auto right_sum = to_host(sum, static_cast<std::size_t>(features));
      std::vector<std::string> names{"copy", "present", "present and sum"};
      std::vector<trit::bench::Graph> graphs;
      graphs.emplace_back(stream, 16, [&](int i) {
        const std::int64_t from = i * tokens % kRows * features;
        cudaMemcpyAsync(dx.data() + from, x.data() + from, static_cast<std::size_t>(tokens * features * 2),
                        cudaMemcpyDeviceToDevice, stream);
      });
      graphs.emplace_back(stream, 16, [&](int i) { norm_backward(args(i, parts), stream); });
      graphs.emplace_back(stream, 16, [&](int i) {
        norm_backward(args(i, parts), stream);
        reduce(parts);
      });
      std::vector<std::int64_t> wrong(3);
      std::vector<double> off(3);
      for (const Variant& v : variants()) {
        if (v.features != features) {
          continue;
        }
        const std::int64_t own_parts = parts_of(v, tokens);
        dx.fill_bytes(0xff);
        partial.fill_bytes(0xff);
        cudaDeviceSynchronize();
        v.run(args(0, own_parts), stream);
        reduce(own_parts);
        if (const cudaError_t error = cudaStreamSynchronize(stream); error != cudaSuccess) {
          std::printf("%s: %s\n", v.name.c_str(), cudaGetErrorString(error));
          return 1;
        }
        const auto got = to_host(dx, right.size());
        const auto got_sum = to_host(sum, right_sum.size());
        std::int64_t bad = 0;
        for (std::size_t i = 0; i < right.size(); ++i) {
          bad += got[i] != right[i];
        }
        double worst = 0;
        for (std::size_t i = 0; i < right_sum.size(); ++i) {
          const double difference = std::abs(static_cast<double>(got_sum[i]) - right_sum[i]);
          worst = difference >= 0 ? std::max(worst, difference) : 1e30;
        }
        wrong.push_back(bad);
        off.push_back(worst);
        names.push_back(v.name);
        graphs.emplace_back(stream, 16, [&](int i) { v.run(args(i, own_parts), stream); });
        wrong_variants += bad != 0 || worst > 0.05;
        {
          wrong.push_back(bad);
          off.push_back(worst);
          names.push_back(v.name + " and sum");
          graphs.emplace_back(stream, 16, [&](int i) {
            v.run(args(i, own_parts), stream);
            reduce(own_parts);
          });
        }
      }
      const std::vector<double> times = trit::bench::time_graphs(stream, graphs, 3, 40);
      const double copy_rate = 4.0 * static_cast<double>(tokens * features) / times[0];
      for (std::size_t i = 0; i < times.size(); ++i) {
        const double bytes = (i == 0 ? 4.0 : 6.0) * static_cast<double>(tokens * features);
        std::printf(
            "{\"tokens\": %lld, \"features\": %lld, \"name\": \"%s\", \"us\": %.1f, \"share_of_copy\": %.3f, "
            "\"tb_per_s\": %.3f, \"wrong\": %lld, \"weight_off\": %.2g}\n",
            static_cast<long long>(tokens), static_cast<long long>(features), names[i].c_str(), times[i],
            bytes / times[i] / copy_rate, bytes / times[i] / 1e6, static_cast<long long>(wrong[i]), off[i]);
      }
      std::fflush(stdout);
    }
  }
  std::printf("wrong variants: %d\n", wrong_variants);
  return wrong_variants > 0 ? 1 : 0;
}
