// SPDX-License-Identifier: MIT
//
// Products on a GPU against cuBLASLt in bfloat16, int8 and fp8 (e4m3), in one process: the product alone,
// between ordinary edges of a CUDA graph and with programmatic dependent launch, and a whole layer
// (norm_quant in front). Up to 256 tokens the weights rotate over more copies than fit into the L2 cache.
// Every timed product is checked first: ours for bit-identical outputs, the integer peer for exact ones, the
// others within rounding.
//
//   bench_cuda --json FILE            the table of README.md
//   bench_cuda --tune --json FILE     every tile, split and plan instead, to choose among them
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "bench/lib/machine.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"
#include "common/progress.h"
#include "cuda/candidates.h"
#include "cuda/cublaslt_peer.h"
#include "cuda/data.h"
#include "cuda/gpu.h"
#include "cuda/plan.h"
#include "cuda/row_kernels.h"
#include "cuda/summary.h"
#include "trit/cuda.h"

namespace trit::bench {
namespace {

using nlohmann::ordered_json;

const std::vector<LinearShape> kShapes{{2560, 2560},  {6912, 2560},  {2560, 6912}, {4096, 4096},
                                       {14336, 4096}, {4096, 14336}, {8192, 8192}, {28672, 8192}};
const std::vector<std::int64_t> kTokens{1, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384};

constexpr std::int64_t kMaxRotatedTokens = 256;
constexpr float kBeta = 0.0123F;
constexpr int kSamples = 16384;

struct Options {
  std::string json;
  TimingOptions timing{.rounds = 7};
  bool tune = false;
  double settle_milliseconds = 120;
  double rotated_megabytes = 320;  // of weights; the second-level cache of an H200 holds 60
  std::vector<std::int64_t> tokens = kTokens;
  std::vector<LinearShape> shapes = kShapes;
};

/// Copies of one matrix of weights, launch i reads copy i % count.
class Rotation {
 public:
  Rotation() = default;
  Rotation(std::size_t bytes, double total_megabytes) : bytes_((bytes + 255) / 256 * 256) {
    count_ = std::max(1, static_cast<int>(std::ceil(total_megabytes * 1e6 / static_cast<double>(bytes_))));
    memory_ = DeviceBuffer<std::uint8_t>(bytes_ * static_cast<std::size_t>(count_));
  }
  std::uint8_t* copy(int i) const { return memory_.data() + static_cast<std::size_t>(i % count_) * bytes_; }
  int count() const { return count_; }
  void replicate() const {
    for (int i = 1; i < count_; ++i) {
      check(cudaMemcpy(copy(i), copy(0), bytes_, cudaMemcpyDeviceToDevice), "cudaMemcpy");
    }
  }

 private:
  std::size_t bytes_ = 0;
  int count_ = 1;
  DeviceBuffer<std::uint8_t> memory_;
};

class Benchmark {
 public:
  explicit Benchmark(const Options& options) : options_(options), device_(cuda::device_info(0)) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    name_ = properties.name;
  }

  ordered_json run() {
    ordered_json results = ordered_json::array();
    memory_read_ = memory_read_rate(device_, stream());
    // First, while the card is cool: these are bound by memory.
    ordered_json rows = ordered_json::object();
    if (!options_.tune) {
      rows = measure_row_kernels(device_, memory_read_, options_.timing.rounds, stream());
    }
    const std::vector<LinearShape>& shapes = options_.shapes;
    apps::Progress progress("bench_cuda", std::ssize(shapes) * std::ssize(options_.tokens), "products");
    std::int64_t done = 0;
    for (const LinearShape& shape : shapes) {
      prepare_weights(shape);
      for (const std::int64_t tokens : options_.tokens) {
        results.push_back(options_.tune ? tune(shape, tokens) : measure(shape, tokens));
        progress.update(++done);
      }
    }
    progress.clear();
    return {{"gpu", name_},
            {"multiprocessors", device_.multiprocessors},
            {"cublaslt", library_.version()},
            {"date", this_machine().date},
            {"memory_read_gigabytes_per_second", memory_read_},
            {"rows", rows},
            {options_.tune ? "candidates" : "products", results}};
  }

 private:
  cudaStream_t stream() const { return stream_.get(); }

  void prepare_weights(const LinearShape& shape) {
    const std::int64_t count = shape.out_features * shape.in_features;
    packed_ = {};
    for (Rotation& rotation : peers_) {
      rotation = {};
    }
    dense_ = DeviceBuffer<std::int8_t>(static_cast<std::size_t>(count));
    random_ternary(dense_.data(), count, 11, stream());
    const DeviceBuffer<std::uint8_t> codes(static_cast<std::size_t>(count / 4));
    pack_codes(dense_.data(), shape.out_features, shape.in_features, codes.data(), stream());
    packed_ = Rotation(cuda::weight_bytes(shape.out_features, shape.in_features), options_.rotated_megabytes);
    cuda::prepare_weights(codes.data(), shape.out_features, shape.in_features, packed_.copy(0), stream());
    check(cudaStreamSynchronize(stream()), "prepare_weights");
    packed_.replicate();
    if (!options_.tune) {
      peer_dense_ = DeviceBuffer<std::int8_t>(static_cast<std::size_t>(count));
      random_int8(peer_dense_.data(), count, 12, stream());
      for (const Element type : kPeers) {
        Rotation& rotation = peers_[static_cast<std::size_t>(type)];
        rotation = Rotation(static_cast<std::size_t>(count) * PeerProduct::element_bytes(type),
                            options_.rotated_megabytes);
        convert(peer_dense_.data(), count, type, rotation.copy(0), stream());
        check(cudaStreamSynchronize(stream()), "convert");
        rotation.replicate();
      }
    }
  }

  struct Operands {
    DeviceBuffer<std::int8_t> q;
    DeviceBuffer<float> row_scale, beta, workspace;
    DeviceBuffer<std::uint16_t> y;
    cuda::Product product;
  };

  Operands make_operands(const LinearShape& shape, std::int64_t tokens) const {
    Operands o;
    const auto inputs = static_cast<std::size_t>(tokens * shape.in_features);
    o.q = DeviceBuffer<std::int8_t>(inputs);
    o.row_scale = DeviceBuffer<float>(static_cast<std::size_t>(tokens));
    o.beta = DeviceBuffer<float>(1);
    o.y = DeviceBuffer<std::uint16_t>(static_cast<std::size_t>(tokens * shape.out_features));
    random_int8(o.q.data(), static_cast<std::int64_t>(inputs), 3, stream());
    random_float(o.row_scale.data(), tokens, 0.001F, 0.1F, 4, stream());
    check(cudaMemcpyAsync(o.beta.data(), &kBeta, sizeof kBeta, cudaMemcpyHostToDevice, stream()),
          "cudaMemcpy");
    cuda::Device sm_80 = device_;
    sm_80.compute_capability = 80;
    std::size_t workspace =
        std::max(cuda::product_workspace_bytes(device_, tokens, shape.out_features, shape.in_features),
                 cuda::product_workspace_bytes(sm_80, tokens, shape.out_features, shape.in_features));
    for (const cuda::ProductPlan& plan :
         cuda::possible_plans(device_, tokens, shape.out_features, shape.in_features)) {
      workspace = std::max(workspace, cuda::product_workspace_bytes(device_, plan, tokens, shape.out_features,
                                                                    shape.in_features));
    }
    o.workspace = DeviceBuffer<float>(workspace / 4 + 4);
    check(cudaMemsetAsync(o.workspace.data(), 0, o.workspace.bytes(), stream()), "cudaMemset");
    check(cudaStreamSynchronize(stream()), "operands");
    o.product.out_features = shape.out_features;
    o.product.in_features = shape.in_features;
    o.product.q = o.q.data();
    o.product.token_scale = o.row_scale.data();
    o.product.tokens = tokens;
    o.product.weight_scale = o.beta.data();
    o.product.y_type = DataType::bfloat16;
    o.product.y = o.y.data();
    o.product.workspace = o.workspace.data();
    return o;
  }

  int copies(const Rotation& rotation, std::int64_t tokens) const {
    return tokens <= kMaxRotatedTokens ? rotation.count() : 1;
  }
  /// Enough launches for about a millisecond, or the whole rotation.
  int launches(const LinearShape& shape, std::int64_t tokens, int copies) const {
    const double operations = 2.0 * static_cast<double>(tokens * shape.out_features * shape.in_features);
    const double bytes = static_cast<double>(shape.out_features * shape.in_features) / 4;
    const double microseconds = std::max({operations / 1.2e9, bytes / 3.5e6, 4.0});
    const int wanted = std::clamp(static_cast<int>(1000 / microseconds), 1, 128);
    return (std::max(wanted, copies) + copies - 1) / copies * copies;
  }

  void require_right(const Operands& o, const LinearShape& shape, std::int64_t tokens,
                     const std::string& name, Result result, Element type, const void* y) const {
    const std::int8_t* weights = result == Result::scaled_bfloat16 ? dense_.data() : peer_dense_.data();
    const std::int64_t wrong = count_wrong(y, result, type, o.q.data(), weights, o.row_scale.data(), kBeta,
                                           tokens, shape.out_features, shape.in_features, kSamples, stream());
    if (wrong != 0) {
      throw Error(fmt::format("{} of {} tokens by {}x{}: {} outputs are wrong or were not written", name,
                              tokens, shape.out_features, shape.in_features, wrong));
    }
  }

  Graph graph_of(const Candidate& candidate, const LinearShape& shape, std::int64_t tokens,
                 bool programmatic) const {
    const int rotated = copies(packed_, tokens);
    return {stream(), launches(shape, tokens, rotated),
            [&](int i) { candidate.launch(packed_.copy(i % rotated), programmatic, stream()); }};
  }

  void check_candidate(const Candidate& candidate, const Operands& o, const LinearShape& shape,
                       std::int64_t tokens) const {
    o.y.fill_bytes(poison_byte(Result::scaled_bfloat16));
    candidate.launch(packed_.copy(0), false, stream());
    require_right(o, shape, tokens, candidate.name, Result::scaled_bfloat16, Element::int8, o.y.data());
  }

  ordered_json tune(const LinearShape& shape, std::int64_t tokens) const {
    const Operands o = make_operands(shape, tokens);
    const std::vector<Candidate> candidates = all_candidates(device_, o.product);
    std::vector<Graph> graphs;
    for (const Candidate& candidate : candidates) {
      check_candidate(candidate, o, shape, tokens);
      graphs.push_back(graph_of(candidate, shape, tokens, false));
      graphs.push_back(graph_of(candidate, shape, tokens, true));
    }
    const std::vector<double> times = time_graphs(stream(), graphs, options_.timing.rounds);
    std::vector<std::size_t> order(candidates.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return times[2 * i + 1]; });
    ordered_json all = ordered_json::array();
    for (const std::size_t i : order) {
      all.push_back({candidates[i].name, times[2 * i], times[2 * i + 1]});
      if (all.size() <= 2) {
        fmt::print("{}x{} M={}: {} {:.2f} plain {:.2f} programmatic\n", shape.out_features, shape.in_features,
                   tokens, candidates[i].name, times[2 * i], times[2 * i + 1]);
      }
    }
    return {{"out_features", shape.out_features},
            {"in_features", shape.in_features},
            {"tokens", tokens},
            {"times", all}};
  }

  /// A peer's operands and its fastest algorithm as a graph; none where the library has no algorithm.
  struct Peer {
    DeviceBuffer<std::uint8_t> q, y;
    std::optional<Graph> graph;
  };
  Peer make_peer(const Operands& o, const LinearShape& shape, std::int64_t tokens, Element type) const {
    const PeerProduct product(library_, type, tokens, shape.out_features, shape.in_features);
    const Rotation& rotation = peers_[static_cast<std::size_t>(type)];
    Peer peer;
    peer.q = DeviceBuffer<std::uint8_t>(static_cast<std::size_t>(tokens * shape.in_features) *
                                        PeerProduct::element_bytes(type));
    peer.y = DeviceBuffer<std::uint8_t>(static_cast<std::size_t>(tokens * shape.out_features) *
                                        (type == Element::int8 ? 4 : 2));
    convert(o.q.data(), tokens * shape.in_features, type, peer.q.data(), stream());
    check(cudaStreamSynchronize(stream()), "convert");
    const int rotated = copies(rotation, tokens);
    std::vector<Graph> graphs;
    for (int i = 0; i < product.algorithms(); ++i) {
      const Result result = type == Element::int8 ? Result::int32 : Result::bfloat16;
      peer.y.fill_bytes(poison_byte(result));
      if (!product.launch(i, peer.q.data(), rotation.copy(0), peer.y.data(), stream())) {
        continue;
      }
      require_right(o, shape, tokens, fmt::format("cuBLASLt algorithm {}", i), result, type, peer.y.data());
      graphs.emplace_back(stream(), launches(shape, tokens, rotated), [&](int launch) {
        static_cast<void>(
            product.launch(i, peer.q.data(), rotation.copy(launch % rotated), peer.y.data(), stream()));
      });
    }
    if (!graphs.empty()) {
      const std::vector<double> times = time_graphs(stream(), graphs, 3);
      peer.graph =
          std::move(graphs[static_cast<std::size_t>(std::ranges::min_element(times) - times.begin())]);
    }
    return peer;
  }

  ordered_json measure(const LinearShape& shape, std::int64_t tokens) const {
    const Operands o = make_operands(shape, tokens);
    const Candidate ours = dispatched(device_, o.product);
    std::vector<std::string> names;
    std::vector<Graph> graphs;
    std::vector<Peer> peers;
    check_candidate(ours, o, shape, tokens);
    names.emplace_back("trit");
    graphs.push_back(graph_of(ours, shape, tokens, false));
    names.emplace_back("trit_programmatic");
    graphs.push_back(graph_of(ours, shape, tokens, true));
    if (tokens >= 1024 && device_.compute_capability != 80) {
      cuda::Device sm_80 = device_;
      sm_80.compute_capability = 80;
      const Candidate fallback = dispatched(sm_80, o.product);
      check_candidate(fallback, o, shape, tokens);
      names.emplace_back("trit_sm80");
      graphs.push_back(graph_of(fallback, shape, tokens, false));
    }
    // The whole layer: bfloat16 activations, RMSNorm, quantisation, product.
    const DeviceBuffer<std::uint16_t> x(static_cast<std::size_t>(tokens * shape.in_features));
    convert(o.q.data(), tokens * shape.in_features, Element::bfloat16, x.data(), stream());
    const DeviceBuffer<std::int8_t> layer_q(o.q.size());
    cuda::NormQuant norm{.x = x.data(),
                         .x_type = DataType::bfloat16,
                         .tokens = tokens,
                         .in_features = shape.in_features,
                         .x_stride = shape.in_features,
                         .norm = Norm::rms,
                         .q = layer_q.data(),
                         .scale = o.row_scale.data(),
                         .programmatic = true};
    cuda::Product layer = o.product;
    layer.q = layer_q.data();
    const Candidate layer_product = dispatched(device_, layer);
    const DeviceBuffer<float> layer_scale(static_cast<std::size_t>(tokens));
    norm.scale = layer_scale.data();
    const Candidate whole{"layer", [&](const std::uint8_t* weights, bool programmatic, cudaStream_t to) {
                            cuda::norm_quant(device_, norm, to);
                            layer_product.launch(weights, programmatic, to);
                          }};
    names.emplace_back("trit_layer_programmatic");
    graphs.push_back(graph_of(whole, shape, tokens, true));
    for (const Element type : kPeers) {
      Peer peer = make_peer(o, shape, tokens, type);
      if (peer.graph) {
        names.push_back(kPeerNames[static_cast<std::size_t>(type)]);
        graphs.push_back(std::move(*peer.graph));
      }
      peers.push_back(std::move(peer));
    }
    // The power limit binds where the tensor cores are busy.
    const std::vector<double> times = time_graphs(stream(), graphs, options_.timing.rounds,
                                                  tokens >= 128 ? options_.settle_milliseconds : 0);
    ordered_json microseconds = ordered_json::object();
    for (std::size_t i = 0; i < names.size(); ++i) {
      microseconds[names[i]] = times[i];
    }
    return {{"out_features", shape.out_features},
            {"in_features", shape.in_features},
            {"tokens", tokens},
            {"microseconds", microseconds}};
  }

  Options options_;
  cuda::Device device_;
  std::string name_;
  OwnStream stream_;
  CublasLt library_;
  double memory_read_ = 0;
  DeviceBuffer<std::int8_t> dense_;       // t
  DeviceBuffer<std::int8_t> peer_dense_;  // the peers' weights, before they are converted
  Rotation packed_;
  static constexpr std::array<Element, 3> kPeers{Element::bfloat16, Element::int8, Element::float8};
  static constexpr std::array<const char*, 3> kPeerNames{"int8", "bfloat16", "float8"};  // by Element
  std::array<Rotation, 3> peers_;
};

}  // namespace

int run(int argc, char** argv) {
  CommandLine app{"Times products and row kernels on a GPU against cuBLASLt.",
                  "bench_cuda --shapes 4096x4096 --tokens 1,128 --json results.json"};
  Options options;
  app.add_json(options.json, "file to write");
  app.add_rounds(options.timing);
  app.add_settle(options.settle_milliseconds,
                 "milliseconds that a product of 128 tokens or more runs before it is timed");
  app.add_flag("--tune", options.tune, "time every tile, split and plan instead of the peers");
  app.add_tokens(options.tokens);
  app.add_shapes(options.shapes);
  CLI11_PARSE(app, argc, argv);

  const ordered_json results = Benchmark(options).run();
  if (!options.tune) {
    print_summary(results["products"]);
    fmt::print("memory read {:.0f} GB/s; rows: {}\n",
               results["memory_read_gigabytes_per_second"].get<double>(), results["rows"].dump());
  }
  if (!options.json.empty()) {
    write_json(options.json, results);
  }
  return 0;
}

}  // namespace trit::bench
