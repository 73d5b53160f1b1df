// SPDX-License-Identifier: MIT
//
// The kernels around the product: norm and quantisation of activations, and what training does to the weights
// at every step. Measured on one row that stays in L1 or L2 (32 KiB of x and g), on as many rows as fill half
// of L2, and on rows from memory, with one thread and with all, beside the read bandwidth of the same
// threads. All results must first be bit-identical to the scalar kernel's.
//
//   bench_rows --json results/      adds the object "rows" to results/<machine>.json
#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <random>

#include "bench/lib/aligned_vector.h"
#include "bench/lib/memory_read.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"
#include "bench/lib/timing.h"
#include "cpu/table.h"
#include "trit/error.h"
#include "trit/linear.h"

using namespace trit;

namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kInputs = 4096;
constexpr std::int64_t kCachedRows = 1;
/// Rows of one call from memory: 16 MiB of x.
constexpr std::int64_t kSliceRows = 1024;

/// What a kernel reads and writes.
struct Rows {
  std::int64_t rows;
  bench::AlignedVector<float> x = bench::AlignedVector<float>(static_cast<std::size_t>(rows * kInputs));
  bench::AlignedVector<float> norm_weight = bench::AlignedVector<float>(static_cast<std::size_t>(kInputs));
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
  bench::AlignedVector<std::int8_t> q;
  bench::AlignedVector<float> scale, rstd, sums;
  bench::AlignedVector<std::int32_t> q_sum;
  bench::AlignedVector<std::uint8_t> codes;
  bench::AlignedVector<float> w;

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
  // `streams` as in NormQuantRow: rows come from memory, as in the library for this many.
  std::function<void(const CpuKernels&, const Rows&, std::int64_t row, bool streams, Outputs&)> run;
};

const std::vector<Kernel>& all_kernels() {
  static const std::vector<Kernel> kernels{
      {"norm_quant", 4 + 1,
       [](const CpuKernels& k, const Rows& in, std::int64_t row, bool streams, Outputs& out) {
         k.norm_quant_row(
             {in.x.data() + row * kInputs, DataType::float32, kInputs, Norm::rms, in.norm_weight.data(),
              1e-6F, out.q.data() + row * kInputs, &out.scale[static_cast<std::size_t>(row)],
              &out.rstd[static_cast<std::size_t>(row)], &out.q_sum[static_cast<std::size_t>(row)], streams});
       }},
      {"abs_sum", 4,
       [](const CpuKernels& k, const Rows& in, std::int64_t row, bool /*streams*/, Outputs& out) {
         out.sums[static_cast<std::size_t>(row)] = k.abs_sum_row(in.x.data() + row * kInputs, kInputs);
       }},
      {"ternarize_pack", 4.25,
       [](const CpuKernels& k, const Rows& in, std::int64_t row, bool /*streams*/, Outputs& out) {
         k.ternarize_pack_row(in.x.data() + row * kInputs, 2.0F, kInputs,
                              out.codes.data() + row * kInputs / 4);
       }},
      {"dequantize", 4.25,
       [](const CpuKernels& k, const Rows& /*in*/, std::int64_t row, bool /*streams*/, Outputs& out) {
         k.dequantize_row(out.codes.data() + row * kInputs / 4, kInputs, 0.5F, out.w.data() + row * kInputs);
       }},
  };
  return kernels;
}

/// Where the rows of a figure lie, and how many threads work on them.
struct Place {
  std::string_view name;
  std::int64_t rows;    // of one call
  std::int64_t slices;  // that calls take in turn
  bool all_threads;
};

/// One backend and kernel; nanoseconds by place.
struct Figure {
  const CpuKernels* kernels;
  const Kernel* kernel;
  std::vector<std::size_t> subjects;  // by place
};

class Benchmark {
 public:
  explicit Benchmark(std::int64_t rows) : in_{rows}, out_(rows) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::generate(in_.x.begin(), in_.x.end(), [&] { return uniform(random); });
    std::generate(in_.norm_weight.begin(), in_.norm_weight.end(), [&] { return 1 + uniform(random) / 2; });
  }

  /// Every backend's bits against the scalar's, which is the first row of the table.
  void check() {
    Outputs reference(in_.rows);
    for (const CpuKernels* kernels : cpu_kernels()) {
      if (!kernels->available()) {
        continue;
      }
      Outputs& mine = kernels == cpu_kernels().front() ? reference : out_;
      for (const Kernel& kernel : all_kernels()) {
        all_threads_->run(in_.rows,
                          [&](std::int64_t row) { kernel.run(*kernels, in_, row, row % 2 == 0, mine); });
      }
      if (&mine != &reference && !(mine == reference)) {
        throw Error(fmt::format("{} differs from {}", name_of(kernels->backend),
                                name_of(cpu_kernels().front()->backend)));
      }
    }
  }

  ordered_json measure(const bench::TimingOptions& timing) {
    const bench::Machine machine = bench::this_machine();
    const std::int64_t in_l2 = std::max<std::int64_t>(2, machine.l2_bytes / 2 / (5 * kInputs));
    const std::int64_t slices = in_.rows / kSliceRows;
    const std::vector<Place> places{{"cache", kCachedRows, 1, false},
                                    {"l2", in_l2, 1, false},
                                    {"memory", kSliceRows, slices, false},
                                    {"memory_all_threads", kSliceRows, slices, true}};
    const std::size_t buffer = 4 * static_cast<std::size_t>(in_.rows * kInputs);
    bench::MemoryRead one(*one_thread_, buffer, std::size_t{64} << 20);
    bench::MemoryRead all(*all_threads_, buffer, std::size_t{64} << 20);
    std::vector<std::function<void()>> subjects{[&] { one.run(); }, [&] { all.run(); }};
    std::vector<Figure> figures;
    for (const CpuKernels* kernels : cpu_kernels()) {
      for (const Kernel& kernel : all_kernels()) {
        if (!kernels->available()) {
          continue;
        }
        figures.push_back({kernels, &kernel, {}});
        for (const Place& place : places) {
          figures.back().subjects.push_back(subjects.size());
          subjects.emplace_back([this, kernels, &kernel, place, slice = std::int64_t{0}]() mutable {
            work(*kernels, kernel, place, slice);
            slice = slice + 1 == place.slices ? 0 : slice + 1;
          });
        }
      }
    }
    const auto seconds = bench::time_interleaved(subjects, timing, bench::progress_bar("bench_rows"));

    const std::vector<double> rates{static_cast<double>(one.bytes()) / bench::median(seconds[0]) / 1e9,
                                    static_cast<double>(all.bytes()) / bench::median(seconds[1]) / 1e9};
    fmt::print("K = {}, ns per input; memory read {:.1f} GB/s on one thread, {:.1f} on {}\n", kInputs,
               rates[0], rates[1], all_threads_->threads());
    fmt::print("{:<12} {:<15} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n", "backend", "kernel", "cache", "L2",
               "memory", "share", "all", "share");
    ordered_json results = ordered_json::array();
    for (const Figure& figure : figures) {
      ordered_json result{{"backend", name_of(figure.kernels->backend)},
                          {"kernel", figure.kernel->name},
                          {"in_features", kInputs}};
      std::string line = fmt::format("{:<12} {:<15}", name_of(figure.kernels->backend), figure.kernel->name);
      for (std::size_t i = 0; i < places.size(); ++i) {
        const std::vector<double>& mine = seconds[figure.subjects[i]];
        const double inputs = static_cast<double>(places[i].rows * kInputs);
        const std::string name(places[i].name);
        const double nanoseconds = bench::median(mine) / inputs * 1e9;
        result[name + "_ns_per_input"] = nanoseconds;
        line += fmt::format(" {:>8.4f}", nanoseconds);
        if (places[i].slices > 1) {
          const std::size_t read = places[i].all_threads ? 1 : 0;
          const double read_bytes = static_cast<double>(read == 0 ? one.bytes() : all.bytes());
          std::vector<double> shares;
          for (std::size_t round = 0; round < mine.size(); ++round) {
            shares.push_back(figure.kernel->bytes_per_input * inputs / mine[round] /
                             (read_bytes / seconds[read][round]));
          }
          result[name + "_share_of_read"] = bench::median(shares);
          line += fmt::format(" {:>7.0f}%", 100 * bench::median(shares));
        }
      }
      fmt::print("{}\n", line);
      results.push_back(result);
    }
    return {{"threads", all_threads_->threads()},
            {"memory_gigabytes_per_second", rates[0]},
            {"memory_gigabytes_per_second_all_threads", rates[1]},
            {"results", results}};
  }

 private:
  void work(const CpuKernels& kernels, const Kernel& kernel, const Place& place, std::int64_t slice) {
    const std::int64_t first = slice * place.rows;
    if (!place.all_threads) {
      for (std::int64_t row = first; row < first + place.rows; ++row) {
        kernel.run(kernels, in_, row, place.slices > 1, out_);
      }
      return;
    }
    // As the library splits rows: a few tasks per thread.
    const std::int64_t tasks = 4 * all_threads_->threads();
    all_threads_->run(tasks, [&](std::int64_t task) {
      for (std::int64_t row = first + task * place.rows / tasks;
           row < first + (task + 1) * place.rows / tasks; ++row) {
        kernel.run(kernels, in_, row, place.slices > 1, out_);
      }
    });
  }

  Rows in_;
  Outputs out_;
  std::unique_ptr<Parallel> one_thread_ = make_parallel(1);
  std::unique_ptr<Parallel> all_threads_ = make_parallel(0);
};

}  // namespace

int bench::run(int argc, char** argv) {
  CommandLine app{"Times the kernels around the product.", "bench_rows --json bench/results"};
  std::string json;
  bench::TimingOptions timing;
  app.add_json(json);
  app.add_rounds(timing);
  CLI11_PARSE(app, argc, argv);

  const std::int64_t last_cache = bench::this_machine().last_cache_bytes();
  Benchmark benchmark((2 * last_cache / (kInputs * 4) / kSliceRows + 1) * kSliceRows);
  benchmark.check();
  const ordered_json results = benchmark.measure(timing);
  if (!json.empty()) {
    bench::store(json, "rows", results);
  }
  return 0;
}
