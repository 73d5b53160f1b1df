// SPDX-License-Identifier: MIT
//
// Packed ternary layers against oneDNN's matmul on the same product: int8 (the better of s8 and u8
// activations, s8 weights), bf16 and fp32, each with its weights in the layout that oneDNN asks for. All run
// interleaved in one process, on the same threads. Every subject has its own copies of the weights, more than
// fit into the last cache, and takes them in turn. Weights are -1, 0, 1 and activations whole numbers up to
// 127, so that all sums are exact in every type. Every output is compared with the reference first.
//
//   bench_peers --json results/      adds the object "peers" to results/<machine>.json
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <dnnl.hpp>
#include <map>

#include "base/buffer.h"
#include "bench/lib/linear_benchmark.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"
#include "bench/lib/timing.h"
#include "trit/error.h"
#include "trit/layout.h"
#include "trit/linear.h"

using namespace trit;

namespace {

using nlohmann::ordered_json;
using Type = dnnl::memory::data_type;

constexpr std::int64_t kBeyondCache = 3;

struct Options {
  Backend backend = Backend::automatic;
  std::vector<bench::LinearShape> shapes{{2560, 2560}, {6912, 2560},  {2560, 6912},
                                         {4096, 4096}, {14336, 4096}, {4096, 14336}};
  std::vector<std::int64_t> tokens{1, 8, 32, 128};
  bench::TimingOptions timing{.rounds = 7};
  std::int64_t last_cache = 0;
};

/// A type of oneDNN's operands; sums come out as s32 for int8 and as f32 otherwise.
struct Operands {
  std::string_view name;
  Type src;
  Type weights;
  Type dst;
  std::int32_t offset;  // of activations: u8 holds q + 128
};
constexpr Operands kS8{"s8s8", Type::s8, Type::s8, Type::s32, 0};
constexpr Operands kU8{"u8s8", Type::u8, Type::s8, Type::s32, 128};
constexpr Operands kBf16{"bf16", Type::bf16, Type::bf16, Type::f32, 0};
constexpr Operands kF32{"fp32", Type::f32, Type::f32, Type::f32, 0};

/// y [M, N] = x [M, K] . w [K, N] for one shape and several M that share the weights.
class Peer {
 public:
  Peer(const Operands& operands, const bench::LinearCase& layer, const std::vector<std::int64_t>& tokens)
      : operands_(operands), layer_(layer), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const std::int64_t n = layer.shape.out_features;
    const std::int64_t k = layer.shape.in_features;
    for (const std::int64_t m : tokens) {
      // The smallest M chooses the layout of the weights. If another M wants another layout, both are kept.
      const dnnl::memory::desc src({m, k}, operands.src, dnnl::memory::format_tag::ab);
      const dnnl::memory::desc dst({m, n}, operands.dst, dnnl::memory::format_tag::ab);
      const dnnl::memory::desc any({k, n}, operands.weights, dnnl::memory::format_tag::any);
      const dnnl::matmul::primitive_desc description(engine_, src, any, dst);
      Call& call = calls_[m];
      call.primitive = dnnl::matmul(description);
      call.weights = description.weights_desc();
      call.src = dnnl::memory(src, engine_);
      call.dst = dnnl::memory(dst, engine_);
      call.implementation = description.impl_info_str();
      fill_activations(call, m);
    }
  }

  /// Copies of the weights, in every layout in use, so that `bytes` of each lie in memory.
  void prepare(std::int64_t bytes) {
    for (auto& item : calls_) {
      Call& call = item.second;
      const auto same = std::find_if(layouts_.begin(), layouts_.end(),
                                     [&](const Layout& layout) { return layout.desc == call.weights; });
      call.layout = static_cast<std::size_t>(same - layouts_.begin());
      if (same == layouts_.end()) {
        layouts_.push_back(make_layout(call.weights, bytes));
      }
    }
  }

  void run(std::int64_t m) {
    Call& call = calls_.at(m);
    Layout& layout = layouts_[call.layout];
    call.primitive.execute(
        stream_,
        {{DNNL_ARG_SRC, call.src}, {DNNL_ARG_WEIGHTS, layout.copies[layout.next]}, {DNNL_ARG_DST, call.dst}});
    stream_.wait();
    layout.next = layout.next + 1 == layout.copies.size() ? 0 : layout.next + 1;
  }

  void check(std::int64_t m) {
    run(m);
    const std::int64_t outputs = layer_.shape.out_features;
    for (std::int64_t token = 0; token < m; ++token) {
      for (std::int64_t row = 0; row < outputs; ++row) {
        const std::int32_t wanted =
            layer_.exact(token, row) + operands_.offset * row_sums_[static_cast<std::size_t>(row)];
        const std::int64_t at = token * outputs + row;
        void* y = calls_.at(m).dst.get_data_handle();
        const double got = operands_.dst == Type::s32 ? static_cast<double>(static_cast<std::int32_t*>(y)[at])
                                                      : static_cast<double>(static_cast<float*>(y)[at]);
        if (got != static_cast<double>(wanted)) {
          throw Error(fmt::format("oneDNN {} {}: output {} of token {} is {}, the reference is {}",
                                  operands_.name, bench::name_of(layer_.shape), row, token, got, wanted));
        }
      }
    }
  }

  std::string_view name() const { return operands_.name; }
  const std::string& implementation(std::int64_t m) const { return calls_.at(m).implementation; }

 private:
  struct Call {
    dnnl::matmul primitive;
    dnnl::memory::desc weights;
    dnnl::memory src;
    dnnl::memory dst;
    std::string implementation;
    std::size_t layout = 0;
  };
  struct Layout {
    dnnl::memory::desc desc;
    AlignedBuffer data;
    std::vector<dnnl::memory> copies;  // in data
    std::size_t next = 0;
  };

  void fill_activations(Call& call, std::int64_t m) {
    const std::int64_t k = layer_.shape.in_features;
    const std::int64_t padded = padded_in_features(k);
    void* data = call.src.get_data_handle();
    for (std::int64_t token = 0; token < m; ++token) {
      for (std::int64_t i = 0; i < k; ++i) {
        const int value = layer_.q[static_cast<std::size_t>(token * padded + i)] + operands_.offset;
        const std::int64_t at = token * k + i;
        if (operands_.src == Type::f32) {
          static_cast<float*>(data)[at] = static_cast<float>(value);
        } else if (operands_.src == Type::bf16) {
          static_cast<std::uint16_t*>(data)[at] = bfloat16_bits(value);
        } else {
          static_cast<std::uint8_t*>(data)[at] = static_cast<std::uint8_t>(value);
        }
      }
    }
  }

  // Exact: |value| <= 128 has at most 8 significant bits.
  static std::uint16_t bfloat16_bits(int value) {
    return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16);
  }

  Layout make_layout(const dnnl::memory::desc& desc, std::int64_t bytes) {
    const std::int64_t n = layer_.shape.out_features;
    const std::int64_t k = layer_.shape.in_features;
    // t is [N, K]: as a K x N matrix its columns are contiguous.
    dnnl::memory plain({{k, n}, Type::s8, dnnl::memory::format_tag::ba}, engine_);
    std::memcpy(plain.get_data_handle(), layer_.t.data(), layer_.t.size());
    if (row_sums_.empty()) {
      row_sums_.resize(static_cast<std::size_t>(n));
      for (std::int64_t i = 0; i < n * k; ++i) {
        row_sums_[static_cast<std::size_t>(i / k)] += layer_.t[static_cast<std::size_t>(i)];
      }
    }
    dnnl::memory typed = plain;
    if (operands_.weights != Type::s8) {
      typed = dnnl::memory({{k, n}, operands_.weights, dnnl::memory::format_tag::ba}, engine_);
      convert(typed);
    }
    const std::size_t size = (desc.get_size() + 4095) / 4096 * 4096;
    const std::size_t count = static_cast<std::size_t>(bytes) / size + 1;
    Layout layout{desc, AlignedBuffer(count * size), {}, 0};
    for (std::size_t i = 0; i < count; ++i) {
      layout.copies.emplace_back(desc, engine_, layout.data.data() + i * size);
      if (i == 0) {
        dnnl::reorder(typed, layout.copies[0]).execute(stream_, typed, layout.copies[0]);
        stream_.wait();
      } else {
        std::memcpy(layout.data.data() + i * size, layout.data.data(), desc.get_size());
      }
    }
    return layout;
  }

  void convert(dnnl::memory& typed) const {
    for (std::size_t i = 0; i < layer_.t.size(); ++i) {
      if (operands_.weights == Type::f32) {
        static_cast<float*>(typed.get_data_handle())[i] = static_cast<float>(layer_.t[i]);
      } else {
        static_cast<std::uint16_t*>(typed.get_data_handle())[i] = bfloat16_bits(layer_.t[i]);
      }
    }
  }

  Operands operands_;
  const bench::LinearCase& layer_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<std::int64_t, Call> calls_;
  std::vector<Layout> layouts_;
  std::vector<std::int32_t> row_sums_;
};

/// This project's layer: the product alone, and with the quantisation of fp32 inputs in front of it.
class Ours {
 public:
  Ours(const CpuKernels& kernels, Parallel& parallel, const bench::LinearCase& layer, std::int64_t bytes)
      : kernels_(kernels), parallel_(parallel), layer_(layer) {
    const PanelFormat format = choose_layout(kernels, parallel, std::ssize(layer.weight.codes)).format;
    do {
      copies_.emplace_back(kernels, parallel, layer.weight.view(), format);
    } while (static_cast<std::int64_t>(copies_.size() * copies_.front().bytes()) < bytes);
    q_.resize(static_cast<std::size_t>(layer.tokens * padded_in_features(layer.shape.in_features)));
    scale_.resize(static_cast<std::size_t>(layer.tokens));
    q_sum_.resize(static_cast<std::size_t>(layer.tokens));
    y_.resize(static_cast<std::size_t>(layer.tokens * layer.shape.out_features));
  }

  void product(std::int64_t m) {
    turn().product(parallel_, layer_.rows(m), nullptr, DataType::float32, y_.data());
  }

  void quantised(std::int64_t m) {
    norm_quant(kernels_, parallel_,
               {.x = layer_.x.data(),
                .tokens = m,
                .in_features = layer_.shape.in_features,
                .x_stride = layer_.shape.in_features,
                .q = q_.data(),
                .scale = scale_.data(),
                .q_sum = q_sum_.data()});
    turn().product(parallel_, {q_.data(), scale_.data(), q_sum_.data(), m}, nullptr, DataType::float32,
                   y_.data());
  }

  void check(std::int64_t m) {
    product(m);
    bench::check_outputs(layer_, m, y_, name_of(backend_of(kernels_)));
  }

 private:
  const PackedLinear& turn() {
    const PackedLinear& packed = copies_[next_];
    next_ = next_ + 1 == copies_.size() ? 0 : next_ + 1;
    return packed;
  }

  const CpuKernels& kernels_;
  Parallel& parallel_;
  const bench::LinearCase& layer_;
  std::vector<PackedLinear> copies_;
  std::size_t next_ = 0;
  bench::AlignedVector<std::int8_t> q_;
  std::vector<float> scale_;
  std::vector<std::int32_t> q_sum_;
  bench::AlignedVector<float> y_;
};

/// Median of the rounds' ratios a / b.
double ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> all(a.size());
  std::transform(a.begin(), a.end(), b.begin(), all.begin(), std::divides<>());
  return bench::median(all);
}

/// oneDNN in all types that it has products of on this CPU: of bfloat16 it has none with AVX2 alone. The first
/// two are those of int8.
std::vector<std::unique_ptr<Peer>> make_peers(const bench::LinearCase& layer,
                                              const std::vector<std::int64_t>& tokens, std::int64_t bytes) {
  std::vector<std::unique_ptr<Peer>> peers;
  for (const Operands& operands : {kS8, kU8, kBf16, kF32}) {
    try {
      peers.push_back(std::make_unique<Peer>(operands, layer, tokens));
    } catch (const dnnl::error& error) {
      if (operands.src != Type::bf16 || error.status != dnnl_unimplemented) {
        throw;
      }
      continue;
    }
    peers.back()->prepare(bytes);
  }
  return peers;
}

/// The results of one shape, one object for every M.
void measure(const Options& options, bench::LinearShape shape, int threads, ordered_json& results) {
  const auto parallel = make_parallel(threads);
  const CpuKernels& kernels = cpu_kernels_for(options.backend);
  const std::int64_t max_tokens = *std::max_element(options.tokens.begin(), options.tokens.end());
  const bench::LinearCase layer = bench::make_linear_case(shape, max_tokens, 1, *parallel);
  const std::int64_t bytes = kBeyondCache * options.last_cache;
  Ours ours(kernels, *parallel, layer, bytes);
  const auto peers = make_peers(layer, options.tokens, bytes);

  std::vector<std::function<void()>> subjects;
  for (const std::int64_t m : options.tokens) {
    ours.check(m);
    subjects.emplace_back([&, m] { ours.product(m); });
    subjects.emplace_back([&, m] { ours.quantised(m); });
    for (const auto& peer : peers) {
      peer->check(m);
      subjects.emplace_back([&, m] { peer->run(m); });
    }
  }
  const auto seconds = bench::time_interleaved(
      subjects, options.timing,
      bench::progress_bar(fmt::format("bench_peers {}, {} thread(s)", bench::name_of(shape), threads)));

  const std::size_t per_m = 2 + peers.size();
  for (std::size_t i = 0; i < options.tokens.size(); ++i) {
    const std::vector<double>* mine = &seconds[i * per_m];
    const std::size_t best = bench::median(mine[2]) <= bench::median(mine[3]) ? 0 : 1;
    ordered_json result{{"threads", threads},
                        {"backend", name_of(backend_of(kernels))},
                        {"out_features", shape.out_features},
                        {"in_features", shape.in_features},
                        {"tokens", options.tokens[i]},
                        {"product_microseconds", bench::median(mine[0]) * 1e6},
                        {"quantised_product_microseconds", bench::median(mine[1]) * 1e6},
                        {"peers", ordered_json::array()}};
    std::string line =
        fmt::format("{:>2} {:>11} {:>6} {:>9.1f} {:>9.1f}", threads, bench::name_of(shape), options.tokens[i],
                    bench::median(mine[0]) * 1e6, bench::median(mine[1]) * 1e6);
    for (std::size_t column = 1; column < peers.size(); ++column) {
      const std::size_t peer = column == 1 ? best : column;
      if (column == 2 && peers.size() == 3) {
        line += fmt::format(" {:>10} {:>6}", "-", "-");
      }
      const std::vector<double>& theirs = mine[2 + peer];
      result["peers"].push_back({{"name", peer == best ? "int8" : peers[peer]->name()},
                                 {"operands", peers[peer]->name()},
                                 {"implementation", peers[peer]->implementation(options.tokens[i])},
                                 {"microseconds", bench::median(theirs) * 1e6},
                                 {"ratio_to_product", ratio(theirs, mine[0])},
                                 {"ratio_to_quantised_product", ratio(theirs, mine[1])}});
      line += fmt::format(" {:>10.1f} {:>6.2f}", bench::median(theirs) * 1e6, ratio(theirs, mine[0]));
    }
    fmt::print("{}\n", line);
    results.push_back(result);
  }
}

/// Over the shapes of a run, per threads, M and peer.
ordered_json means(const ordered_json& results) {
  std::map<std::tuple<int, std::int64_t, std::string>, std::vector<std::pair<double, double>>> groups;
  for (const ordered_json& result : results) {
    for (const ordered_json& peer : result["peers"]) {
      groups[{result["threads"], result["tokens"], peer["name"]}].emplace_back(
          peer["ratio_to_product"], peer["ratio_to_quantised_product"]);
    }
  }
  ordered_json all = ordered_json::array();
  for (const auto& [key, values] : groups) {
    double product = 0;
    double quantised = 0;
    double min = values.front().first;
    for (const auto& [a, b] : values) {
      product += std::log(a);
      quantised += std::log(b);
      min = std::min(min, a);
    }
    const auto count = static_cast<double>(values.size());
    all.push_back({{"threads", std::get<0>(key)},
                   {"tokens", std::get<1>(key)},
                   {"peer", std::get<2>(key)},
                   {"shapes", values.size()},
                   {"ratio_to_product", std::exp(product / count)},
                   {"least_ratio_to_product", min},
                   {"ratio_to_quantised_product", std::exp(quantised / count)}});
  }
  return all;
}

/// The keys in which results of different cases differ.
constexpr const char* kCaseKeys[] = {"backend", "threads", "out_features", "in_features", "tokens"};

}  // namespace

int bench::run(int argc, char** argv) {
  bench::keep_freed_memory();
  CommandLine app{"Times packed ternary products against oneDNN's int8, bf16 and fp32.",
                  "bench_peers --shapes 4096x4096 --tokens 1,128 --json bench/results"};
  Options options;
  std::string json;
  std::string backend = "auto";
  const bench::Machine machine = bench::this_machine();
  options.last_cache = machine.last_cache_bytes();
  std::vector<int> threads = one_and_all_threads();
  bool merge = false;
  app.add_json(json);
  app.add_flag("--merge", merge, "keep the results of other cases in the JSON file");
  app.add_backend(backend);
  app.add_threads(threads);
  app.add_shapes(options.shapes);
  app.add_tokens(options.tokens);
  app.add_rounds(options.timing);
  CLI11_PARSE(app, argc, argv);
  options.backend = backend_from_name(backend);

  const dnnl_version_t* version = dnnl::version();
  const std::string library = fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
  fmt::print(
      "{}; us, and its time over the ternary product's\n{:>2} {:>11} {:>6} {:>9} {:>9} {:>17} {:>17} "
      "{:>17}\n",
      library, "T", "N x K", "tokens", "ternary", "+quantise", "int8", "bf16", "fp32");
  ordered_json results = ordered_json::array();
  for (const int count : threads) {
    omp_set_num_threads(count);
    for (const bench::LinearShape shape : options.shapes) {
      measure(options, shape, count, results);
    }
  }
  omp_set_num_threads(machine.cores);  // what this_machine() counts
  if (merge && !json.empty()) {
    keep_others(results, stored(json, "peers").value("results", ordered_json::array()), kCaseKeys);
  }
  const ordered_json summary = means(results);
  for (const ordered_json& mean : summary) {
    fmt::print(
        "{} thread(s), {} tokens, {}: {:.2f} (geometric mean of {}; minimum {:.2f}; with quantisation "
        "{:.2f})\n",
        mean["threads"].get<int>(), mean["tokens"].get<int>(), mean["peer"].get<std::string>(),
        mean["ratio_to_product"].get<double>(), mean["shapes"].get<int>(),
        mean["least_ratio_to_product"].get<double>(), mean["ratio_to_quantised_product"].get<double>());
  }
  if (!json.empty()) {
    bench::store(json, "peers", {{"library", library}, {"means", summary}, {"results", results}});
  }
  return 0;
}
