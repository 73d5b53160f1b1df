// SPDX-License-Identifier: MIT
//
// One layer that obeys standard input, so that external_peers.py can interleave it with other processes:
//
//   load N K M     prepares copies of the layer, more than fit into the last cache, and checks the outputs
//                  -> "ready"
//   run SECONDS    quantises fp32 activations (no norm) and multiplies, each time with the next copy, for
//                  about so long -> microseconds of one call
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <sstream>

#include "bench/lib/linear_case.h"
#include "bench/lib/machine.h"
#include "bench/lib/program.h"
#include "bench/lib/timing.h"
#include "common/number_options.h"
#include "trit/error.h"
#include "trit/layout.h"
#include "trit/linear.h"

using namespace trit;

namespace {

constexpr std::int64_t kBeyondCache = 3;

class Server {
 public:
  Server(const CpuKernels& kernels, int threads, std::int64_t group)
      : kernels_(kernels), parallel_(make_parallel(threads)), group_(group) {}

  void load(bench::LinearShape shape, std::int64_t tokens) {
    copies_.clear();
    next_ = 0;
    layer_ =
        std::make_unique<bench::LinearCase>(bench::make_linear_case(shape, tokens, 1, *parallel_, group_));
    const TernaryMatrix& weight = group_ == 0 ? layer_->weight : layer_->grouped;
    const std::int64_t last_cache = bench::this_machine().last_cache_bytes();
    const PanelFormat format = choose_layout(kernels_, *parallel_, std::ssize(layer_->weight.codes)).format;
    do {
      copies_.emplace_back(kernels_, *parallel_, weight.view(), format);
    } while (static_cast<std::int64_t>(copies_.size() * copies_.front().bytes()) < kBeyondCache * last_cache);
    q_.resize(static_cast<std::size_t>(tokens * padded_in_features(shape.in_features)));
    scale_.resize(static_cast<std::size_t>(tokens));
    q_sum_.resize(static_cast<std::size_t>(tokens));
    y_.resize(static_cast<std::size_t>(tokens * shape.out_features));
    copies_.front().product(*parallel_, layer_->rows(tokens), nullptr, DataType::float32, y_.data());
    bench::check_outputs(*layer_, tokens, y_, name_of(backend_of(kernels_)), group_ != 0);
  }

  double run(double seconds) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    std::int64_t calls = 0;
    double taken = 0;
    do {
      call();
      ++calls;
      taken = std::chrono::duration<double>(Clock::now() - start).count();
    } while (taken < seconds);
    return taken / static_cast<double>(calls) * 1e6;
  }

 private:
  void call() {
    norm_quant(kernels_, *parallel_,
               {.x = layer_->x.data(),
                .tokens = layer_->tokens,
                .in_features = layer_->shape.in_features,
                .x_stride = layer_->shape.in_features,
                .q = q_.data(),
                .scale = scale_.data(),
                .q_sum = q_sum_.data()});
    copies_[next_].product(*parallel_, {q_.data(), scale_.data(), q_sum_.data(), layer_->tokens}, nullptr,
                           DataType::float32, y_.data());
    next_ = next_ + 1 == copies_.size() ? 0 : next_ + 1;
  }

  const CpuKernels& kernels_;
  std::unique_ptr<Parallel> parallel_;
  std::int64_t group_;
  std::unique_ptr<bench::LinearCase> layer_;
  std::vector<PackedLinear> copies_;
  std::size_t next_ = 0;
  bench::AlignedVector<std::int8_t> q_;
  std::vector<float> scale_;
  std::vector<std::int32_t> q_sum_;
  bench::AlignedVector<float> y_;
};

}  // namespace

int bench::run(int argc, char** argv) {
  bench::keep_freed_memory();
  CommandLine app{"Runs one layer on commands from standard input, for external_peers.py.",
                  "echo 'load 4096 4096 1' | bench_serve --threads 1"};
  std::string backend = "auto";
  int threads = 0;
  app.add_backend(backend);
  app.add_option("--threads", threads, "CPU threads; 0 means all CPUs that this process may use")
      ->type_name("N")
      ->check(apps::whole_number(0, apps::kMaxThreads));
  std::int64_t group = 0;
  app.add_option("--group", group, "float16 scales for groups of so many inputs; 0: a scale for the matrix")
      ->type_name("N");
  CLI11_PARSE(app, argc, argv);
  const CpuKernels& kernels = cpu_kernels_for(backend_from_name(backend));
  Server server(kernels, threads, group);
  fmt::print("{}\n", name_of(backend_of(kernels)));
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "load") {
      bench::LinearShape shape{};
      std::int64_t tokens = 0;
      words >> shape.out_features >> shape.in_features >> tokens;
      server.load(shape, tokens);
      fmt::print("ready\n");
    } else if (verb == "run") {
      double seconds = 0;
      words >> seconds;
      fmt::print("{}\n", server.run(seconds));
    } else {
      throw Error(fmt::format("'{}': wanted load N K M or run SECONDS", line));
    }
    std::fflush(stdout);
  }
  return 0;
}
