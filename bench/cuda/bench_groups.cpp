// SPDX-License-Identifier: MIT
//
// Products with group scales on a GPU beside those without, in one process, and the row kernels that go with
// them. Graphs, rotation of weights and settling are those of bench_cuda. Every product is checked first: its bits
// are those of decode, 16 tokens at a time.
//
//   bench_cuda_groups --json FILE            groups of 128 and 64, float16 and float32, scales of tokens
//   bench_cuda_groups --tune --json FILE     every plan for groups of 128
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/lib/machine.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"
#include "cuda/data.h"
#include "cuda/gpu.h"
#include "cuda/plan.h"
#include "cuda/row_kernels.h"
#include "trit/cuda.h"

namespace trit::bench {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kMaxRotatedTokens = 256;

struct Options {
  std::string json;
  bench::TimingOptions timing{.rounds = 5};
  bool tune = false;
  double settle_milliseconds = 60;
  double rotated_megabytes = 320;
  std::vector<std::int64_t> tokens{1, 16, 64, 256, 4096};
  std::vector<bench::LinearShape> shapes{{2560, 2560},  {6912, 2560},  {2560, 6912}, {4096, 4096},
                                         {14336, 4096}, {4096, 14336}, {8192, 8192}, {28672, 8192}};
};

/// One way of scaling: 0 is without groups.
struct Way {
  const char* name;
  std::int64_t group;
  DataType type;
  TokenScaleGranularity tokens;
  bool programmatic;
};
constexpr std::array<Way, 7> kWays = {{
    {"none", 0, DataType::float32, TokenScaleGranularity::token, false},
    {"none_programmatic", 0, DataType::float32, TokenScaleGranularity::token, true},
    {"g128", 128, DataType::float16, TokenScaleGranularity::token, false},
    {"g128_programmatic", 128, DataType::float16, TokenScaleGranularity::token, true},
    {"g64_programmatic", 64, DataType::float16, TokenScaleGranularity::token, true},
    {"g128_float32_programmatic", 128, DataType::float32, TokenScaleGranularity::token, true},
    {"g128_token_groups_programmatic", 128, DataType::float16, TokenScaleGranularity::group, true},
}};

class Benchmark {
 public:
  explicit Benchmark(const Options& options) : options_(options), device_(cuda::device_info(0)) {}

  ordered_json run() {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    ordered_json products = ordered_json::array();
    const double memory_read = memory_read_rate(device_, stream());
    ordered_json rows;
    if (!options_.tune) {
      rows = measure_rows(memory_read);
      fmt::print("rows {}\n", rows.dump());
    }
    for (const bench::LinearShape& shape : options_.shapes) {
      prepare(shape);
      for (const std::int64_t tokens : options_.tokens) {
        products.push_back(measure(shape, tokens));
      }
    }
    return {{"gpu", properties.name},
            {"date", bench::this_machine().date},
            {"memory_read_gigabytes_per_second", memory_read},
            {"rows", rows},
            {options_.tune ? "candidates" : "products", products}};
  }

 private:
  cudaStream_t stream() const { return stream_.get(); }

  /// Copies of weights, each followed by its scales of either group size and type.
  void prepare(const bench::LinearShape& shape) {
    const std::int64_t n = shape.out_features;
    const std::int64_t k = shape.in_features;
    const DeviceBuffer<std::int8_t> t(static_cast<std::size_t>(n * k));
    const DeviceBuffer<std::uint8_t> codes(static_cast<std::size_t>(n * k / 4));
    random_ternary(t.data(), n * k, 11, stream());
    pack_codes(t.data(), n, k, codes.data(), stream());
    weight_bytes_ = cuda::weight_bytes(n, k);
    half_bytes_ = cuda::group_scale_bytes(n, k, 64, DataType::float16);
    single_bytes_ = cuda::group_scale_bytes(n, k, 128, DataType::float32);
    copy_bytes_ = (weight_bytes_ + half_bytes_ + single_bytes_ + half_bytes_ + 255) / 256 * 256;
    copies_ = std::max(1, static_cast<int>(std::ceil(options_.rotated_megabytes * 1e6 /
                                                     static_cast<double>(weight_bytes_))));
    memory_ = DeviceBuffer<std::uint8_t>(copy_bytes_ * static_cast<std::size_t>(copies_));
    cuda::prepare_weights(codes.data(), n, k, memory_.data(), stream());
    const std::int64_t scales = n * (k / 64);
    const DeviceBuffer<float> scale(static_cast<std::size_t>(scales));
    random_float(scale.data(), scales, 0.005F, 0.02F, 5, stream());
    for (const auto& [group, type] :
         {std::pair{64, DataType::float16}, {128, DataType::float32}, {128, DataType::float16}}) {
      cuda::prepare_group_scales(scale.data(), n, k, group, type, memory_.data() + scale_offset(group, type),
                                 stream());
    }
    check(cudaStreamSynchronize(stream()), "preparing");
    for (int i = 1; i < copies_; ++i) {
      check(cudaMemcpy(memory_.data() + static_cast<std::size_t>(i) * copy_bytes_, memory_.data(),
                       copy_bytes_, cudaMemcpyDeviceToDevice),
            "cudaMemcpy");
    }
  }
  std::size_t scale_offset(std::int64_t group, DataType type) const {
    return weight_bytes_ + (group == 64                 ? 0
                            : type == DataType::float32 ? half_bytes_
                                                        : half_bytes_ + single_bytes_);
  }

  ordered_json measure(const bench::LinearShape& shape, std::int64_t tokens) const {
    const std::int64_t n = shape.out_features;
    const std::int64_t k = shape.in_features;
    const DeviceBuffer<std::int8_t> q(static_cast<std::size_t>(tokens * k));
    const DeviceBuffer<float> token_scale(static_cast<std::size_t>(tokens * (k / 64)));
    const DeviceBuffer<float> beta(1);
    const DeviceBuffer<std::uint16_t> y(static_cast<std::size_t>(tokens * n));
    const DeviceBuffer<std::uint8_t> workspace(std::size_t{256} << 20U);
    random_int8(q.data(), tokens * k, 3, stream());
    random_float(token_scale.data(), tokens * (k / 64), 0.001F, 0.1F, 4, stream());
    random_float(beta.data(), 1, 0.001F, 0.1F, 4, stream());
    workspace.fill_bytes(0);
    const int rotated = tokens <= kMaxRotatedTokens ? copies_ : 1;
    const auto product = [&](const Way& way, int copy, bool programmatic) {
      const std::uint8_t* const weights =
          memory_.data() + static_cast<std::size_t>(copy % rotated) * copy_bytes_;
      return cuda::Product{.weights = weights,
                           .out_features = n,
                           .in_features = k,
                           .q = q.data(),
                           .token_scale = token_scale.data(),
                           .tokens = tokens,
                           .weight_scale = beta.data(),
                           .granularity = way.group > 0 ? ScaleGranularity::group : ScaleGranularity::tensor,
                           .y_type = DataType::bfloat16,
                           .y = y.data(),
                           .workspace = workspace.data(),
                           .programmatic = programmatic,
                           .group = way.group,
                           .group_scale = weights + scale_offset(way.group, way.type),
                           .group_scale_type = way.type,
                           .token_scales = way.tokens};
    };
    const auto host = [&] {
      std::vector<std::uint16_t> values(std::min<std::size_t>(y.size(), std::size_t{1} << 24U));
      check(cudaStreamSynchronize(stream()), "a product");
      check(cudaMemcpy(values.data(), y.data(), values.size() * 2, cudaMemcpyDeviceToHost), "cudaMemcpy");
      return values;
    };
    std::vector<std::string> names;
    std::vector<Graph> graphs;
    const auto add = [&](const std::string& name, const Way& way, const cuda::ProductPlan& plan) {
      if (way.group > 0) {
        cuda::product(device_, cuda::DecodePlan{2, 1, 2}, product(way, 0, false), stream());
        const std::vector<std::uint16_t> wanted = host();
        y.fill_bytes(0xff);
        cuda::product(device_, plan, product(way, 0, false), stream());
        if (host() != wanted) {
          throw Error(fmt::format("{} of {} tokens by {}x{}: outputs differ", name, tokens, n, k));
        }
      }
      const double microseconds = std::max(
          {2.0 * static_cast<double>(tokens * n * k) / 1.2e9, static_cast<double>(n * k) / 4 / 3.5e6, 4.0});
      const int wanted = std::max(std::clamp(static_cast<int>(1000 / microseconds), 1, 128), rotated);
      names.push_back(name);
      graphs.emplace_back(stream(), (wanted + rotated - 1) / rotated * rotated, [&, way, plan](int i) {
        cuda::product(device_, plan, product(way, i, way.programmatic), stream());
      });
    };
    if (options_.tune) {
      add("none", kWays[1], cuda::default_plan(device_, tokens, n, k));
      for (const cuda::ProductPlan& plan : cuda::possible_plans(device_, tokens, n, k, 128)) {
        add(cuda::name_of(plan), kWays[3], plan);
      }
    } else {
      for (const Way& way : kWays) {
        add(way.name, way, cuda::default_plan(device_, tokens, n, k, way.group, way.type, way.tokens));
      }
    }
    const std::vector<double> times = time_graphs(stream(), graphs, options_.timing.rounds,
                                                  tokens >= 128 ? options_.settle_milliseconds : 0);
    ordered_json microseconds = ordered_json::object();
    for (std::size_t i = 0; i < names.size(); ++i) {
      microseconds[names[i]] = times[i];
    }
    if (options_.tune) {
      std::vector<std::size_t> order(names.size());
      for (std::size_t i = 0; i < order.size(); ++i) {
        order[i] = i;
      }
      std::ranges::sort(order, {}, [&](std::size_t i) { return times[i]; });
      std::string line = fmt::format("{}x{} M={}: none {:.2f}", n, k, tokens, times[0]);
      for (std::size_t i = 0; i < std::min<std::size_t>(order.size(), 7); ++i) {
        line += order[i] == 0 ? "" : fmt::format(", {} {:.2f}", names[order[i]], times[order[i]]);
      }
      fmt::print("{}\n", line);
    } else {
      fmt::print(
          "{}x{} M={}: none {:.2f} prog {:.2f} | ratio g128 {:.3f} prog {:.3f} g64 {:.3f} float32 {:.3f} "
          "tokens "
          "{:.3f} | {} ({})\n",
          n, k, tokens, times[0], times[1], times[0] / times[2], times[1] / times[3], times[1] / times[4],
          times[1] / times[5], times[1] / times[6],
          cuda::name_of(cuda::default_plan(device_, tokens, n, k, 128)),
          cuda::name_of(cuda::default_plan(device_, tokens, n, k)));
    }
    std::fflush(stdout);
    return {{"out_features", n}, {"in_features", k}, {"tokens", tokens}, {"microseconds", microseconds}};
  }

  ordered_json measure_rows(double memory_read) const {
    constexpr std::int64_t kInputs = 8192;
    constexpr std::int64_t kRows = 16384;
    const DeviceBuffer<std::int8_t> q(static_cast<std::size_t>(kInputs * kRows));
    const DeviceBuffer<std::uint16_t> x(q.size());
    const DeviceBuffer<float> scale(q.size() / 64);
    const DeviceBuffer<float> norm_weight(static_cast<std::size_t>(kInputs));
    const DeviceBuffer<std::int8_t> signs(static_cast<std::size_t>(kInputs));
    const DeviceBuffer<float> w(static_cast<std::size_t>(kInputs * kInputs));
    const DeviceBuffer<std::uint8_t> codes(w.size() / 4);
    const DeviceBuffer<std::uint8_t> weights(cuda::weight_bytes(kInputs, kInputs));
    const DeviceBuffer<float> prepared(w.size() / 128);
    random_int8(q.data(), kInputs * kRows, 9, stream());
    random_int8(signs.data(), kInputs, 10, stream());  // of which the sign counts
    random_float(w.data(), kInputs * kInputs, -1.0F, 1.0F, 8, stream());
    random_float(norm_weight.data(), kInputs, 0.5F, 1.5F, 7, stream());
    convert(q.data(), kInputs * kRows, Element::bfloat16, x.data(), stream());
    struct Row {
      std::string name;
      double bytes;
    };
    std::vector<Row> names;
    std::vector<Graph> graphs;
    const auto add = [&](std::int64_t tokens, bool rotated, std::int64_t group, bool programmatic) {
      names.push_back({fmt::format("{} rows{}{}{}", tokens, rotated ? ", rotation" : "",
                                   group > 0 ? ", groups" : "", programmatic ? ", programmatic" : ""),
                       3.0 * static_cast<double>(tokens * kInputs)});
      graphs.emplace_back(stream(), tokens == 1 ? 128 : 4, [&, tokens, rotated, group, programmatic](int) {
        cuda::norm_quant(device_,
                         {.x = x.data(),
                          .x_type = DataType::bfloat16,
                          .tokens = tokens,
                          .in_features = kInputs,
                          .x_stride = kInputs,
                          .norm = Norm::rms,
                          .norm_weight = norm_weight.data(),
                          .q = q.data(),
                          .scale = scale.data(),
                          .programmatic = programmatic,
                          .group = group,
                          .rotation_block = rotated ? 1024 : 0,
                          .rotation_signs = rotated ? signs.data() : nullptr},
                         stream());
      });
    };
    for (const std::int64_t tokens : {kRows, std::int64_t{1}}) {
      for (const bool rotated : {false, true}) {
        for (const std::int64_t group : {std::int64_t{0}, std::int64_t{128}}) {
          add(tokens, rotated, group, false);
          if (tokens == 1) {
            add(tokens, rotated, group, true);
          }
        }
      }
    }
    names.push_back({"pack_weights, groups", 4.75 * static_cast<double>(w.size())});
    graphs.emplace_back(stream(), 4, [&](int) {
      cuda::pack_weights(device_,
                         {.w = w.data(),
                          .out_features = kInputs,
                          .in_features = kInputs,
                          .granularity = ScaleGranularity::group,
                          .group = 128,
                          .scale = scale.data(),
                          .codes = codes.data(),
                          .weights = weights.data(),
                          .group_scale = prepared.data()},
                         stream());
    });
    const std::vector<double> times = time_graphs(stream(), graphs, 15);
    ordered_json rows = ordered_json::object();
    for (std::size_t i = 0; i < names.size(); ++i) {
      rows[names[i].name] = {{"microseconds", times[i]},
                             {"share", names[i].bytes / times[i] / 1e3 / memory_read}};
    }
    return rows;
  }

  Options options_;
  cuda::Device device_;
  OwnStream stream_;
  std::size_t weight_bytes_ = 0, half_bytes_ = 0, single_bytes_ = 0, copy_bytes_ = 0;
  int copies_ = 1;
  DeviceBuffer<std::uint8_t> memory_;
};

}  // namespace

int run(int argc, char** argv) {
  CommandLine app{"Times products with group scales on a GPU beside those without.",
                  "bench_cuda_groups --shapes 4096x4096 --tokens 1,128 --json results.json"};
  Options options;
  app.add_json(options.json, "file to write");
  app.add_rounds(options.timing);
  app.add_settle(options.settle_milliseconds,
                 "milliseconds that a product of 128 tokens or more runs before it is timed");
  app.add_flag("--tune", options.tune, "time every plan for groups of 128");
  app.add_tokens(options.tokens);
  app.add_shapes(options.shapes);
  CLI11_PARSE(app, argc, argv);

  const ordered_json results = Benchmark(options).run();
  if (!options.json.empty()) {
    write_json(options.json, results);
  }
  return 0;
}

}  // namespace trit::bench
