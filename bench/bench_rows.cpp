// SPDX-License-Identifier: MIT
//
// The kernels around the product, one thread: norm and quantisation of activations, and what training does to
// the weights at every step. Each is timed where its rows lie in cache and where they stream from memory,
// next to the memory's read bandwidth; results are compared with the scalar row's bits first.
//
//   bench_rows --json results/      adds the object "rows" to results/<machine>.json
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <optional>
#include <random>

#include "common/aligned_vector.h"
#include "common/memory_read.h"
#include "common/progress.h"
#include "common/timing.h"
#include "report.h"
#include "trit/linear.h"

namespace {

using namespace trit;
using nlohmann::ordered_json;

constexpr std::int64_t kInputs = 4096;
constexpr std::int64_t kCachedRows = 1;

/// What a kernel reads and writes; each backend has its own outputs.
struct Rows {
  std::int64_t rows;
  apps::AlignedVector<float> x = apps::AlignedVector<float>(static_cast<std::size_t>(rows * kInputs));
  apps::AlignedVector<float> norm_weight = apps::AlignedVector<float>(static_cast<std::size_t>(kInputs));
};

struct Outputs {
  explicit Outputs(std::int64_t rows)
      : q(static_cast<std::size_t>(rows * kInputs)),
        scale(static_cast<std::size_t>(rows)),
        rstd(static_cast<std::size_t>(rows)),
        sums(static_cast<std::size_t>(rows)),
        q_sum(static_cast<std::size_t>(rows)),
        codes(static_cast<std::size_t>(rows * kInputs / 4)),
        w(static_cast<std::size_t>(rows * kInputs)) {}
  apps::AlignedVector<std::int8_t> q;
  apps::AlignedVector<float> scale, rstd, sums;
  apps::AlignedVector<std::int32_t> q_sum;
  apps::AlignedVector<std::uint8_t> codes;
  apps::AlignedVector<float> w;

  /// Bits of everything, for comparison with another backend's.
  bool operator==(const Outputs& other) const {
    const auto same = [](const auto& a, const auto& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
    };
    return same(q, other.q) && same(scale, other.scale) && same(rstd, other.rstd) && same(sums, other.sums) &&
           same(q_sum, other.q_sum) && same(codes, other.codes) && same(w, other.w);
  }
};

struct Kernel {
  std::string_view name;
  double bytes_per_input;  // read and written
  std::function<void(const CpuKernels&, const Rows&, std::int64_t row, Outputs&)> run;
};

const std::vector<Kernel>& all_kernels() {
  static const std::vector<Kernel> kernels{
      {"norm_quant", 4 + 1,
       [](const CpuKernels& k, const Rows& in, std::int64_t row, Outputs& out) {
         k.norm_quant_row(
             {in.x.data() + row * kInputs, DataType::float32, kInputs, Norm::rms, in.norm_weight.data(),
              1e-6F, out.q.data() + row * kInputs, &out.scale[static_cast<std::size_t>(row)],
              &out.rstd[static_cast<std::size_t>(row)], &out.q_sum[static_cast<std::size_t>(row)]});
       }},
      {"abs_sum", 4,
       [](const CpuKernels& k, const Rows& in, std::int64_t row, Outputs& out) {
         out.sums[static_cast<std::size_t>(row)] = k.abs_sum_row(in.x.data() + row * kInputs, kInputs);
       }},
      {"ternarize_pack", 4.25,
       [](const CpuKernels& k, const Rows& in, std::int64_t row, Outputs& out) {
         k.ternarize_pack_row(in.x.data() + row * kInputs, 2.0F, kInputs,
                              out.codes.data() + row * kInputs / 4);
       }},
      {"dequantize", 4.25,
       [](const CpuKernels& k, const Rows& /*in*/, std::int64_t row, Outputs& out) {
         k.dequantize_row(out.codes.data() + row * kInputs / 4, kInputs, 0.5F, out.w.data() + row * kInputs);
       }},
  };
  return kernels;
}

int run(int argc, char** argv) {
  CLI::App app{"Times the kernels around the product, one thread."};
  std::string json;
  apps::TimingOptions timing;
  app.add_option("--json", json, "file, or folder for <machine>.json, to add the results to");
  app.add_option("--rounds", timing.rounds, "rounds; figures are medians over them")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  const apps::Machine machine = apps::this_machine();
  const std::int64_t last_cache = std::max<std::int64_t>(machine.l3_bytes, std::int64_t{32} << 20);
  Rows rows{2 * last_cache / (kInputs * 4)};
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::generate(rows.x.begin(), rows.x.end(), [&] { return uniform(random); });
  std::generate(rows.norm_weight.begin(), rows.norm_weight.end(), [&] { return 1 + uniform(random) / 2; });

  std::vector<const CpuKernels*> backends;
  std::vector<Outputs> outputs;
  for (const CpuKernels* kernels : cpu_kernels()) {
    if (kernels->available()) {
      backends.push_back(kernels);
      outputs.emplace_back(rows.rows);
      for (const Kernel& kernel : all_kernels()) {
        for (std::int64_t row = 0; row < rows.rows; ++row) {
          kernel.run(*kernels, rows, row, outputs.back());
        }
      }
      if (!(outputs.back() == outputs.front())) {
        throw Error(
            fmt::format("{} differs from {}", name_of(kernels->backend), name_of(backends[0]->backend)));
      }
    }
  }

  const auto parallel = make_parallel(1);
  apps::MemoryRead memory(*parallel, static_cast<std::size_t>(3 * last_cache));
  std::vector<std::function<void()>> subjects{[&] { memory.run(); }};
  for (std::size_t b = 0; b < backends.size(); ++b) {
    for (const Kernel& kernel : all_kernels()) {
      for (const std::int64_t count : {kCachedRows, rows.rows}) {
        subjects.emplace_back([&, b, count] {
          for (std::int64_t row = 0; row < count; ++row) {
            kernel.run(*backends[b], rows, row, outputs[b]);
          }
        });
      }
    }
  }
  std::optional<apps::Progress> progress;
  const auto seconds = apps::time_interleaved(subjects, timing, [&](std::int64_t done, std::int64_t total) {
    if (!progress) {
      progress.emplace("bench_rows", total, "batches");
    }
    progress->update(done);
  });
  progress.reset();

  const double memory_rate = static_cast<double>(memory.bytes()) / apps::median(seconds[0]) / 1e9;
  fmt::print("1 thread, K = {}: memory read {:.1f} GB/s\n{:<12} {:<15} {:>13} {:>14} {:>12}\n", kInputs,
             memory_rate, "backend", "kernel", "cache ns/input", "memory ns/input", "memory GB/s");
  ordered_json results = ordered_json::array();
  std::size_t at = 1;
  for (const CpuKernels* kernels : backends) {
    for (const Kernel& kernel : all_kernels()) {
      const double cached = apps::median(seconds[at]) / static_cast<double>(kCachedRows * kInputs) * 1e9;
      const double streamed = apps::median(seconds[at + 1]) / static_cast<double>(rows.rows * kInputs) * 1e9;
      at += 2;
      fmt::print("{:<12} {:<15} {:>13.4f} {:>14.4f} {:>12.1f}\n", name_of(kernels->backend), kernel.name,
                 cached, streamed, kernel.bytes_per_input / streamed);
      results.push_back({{"backend", name_of(kernels->backend)},
                         {"kernel", kernel.name},
                         {"in_features", kInputs},
                         {"cache_ns_per_input", cached},
                         {"memory_ns_per_input", streamed},
                         {"memory_gigabytes_per_second", kernel.bytes_per_input / streamed}});
    }
  }
  if (!json.empty()) {
    bench::store(json, "rows", {{"memory_gigabytes_per_second", memory_rate}, {"results", results}});
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_rows: {}\n", error.what());
    return 1;
  }
}
