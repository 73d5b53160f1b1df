// SPDX-License-Identifier: MIT
//
// The time of a launch on a GPU: many launches in a CUDA graph, medians over its replays.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <span>
#include <vector>

#include "bench/lib/event_timer.h"
#include "bench/lib/timing.h"
#include "runtime/cuda/resources.h"

namespace trit::bench {

/// `launches` calls of record(i), i = 0 .. launches - 1, as one graph.
class LaunchGraph {
 public:
  LaunchGraph(cudaStream_t stream, int launches, const std::function<void(int)>& record)
      : launches_(launches), graph_(runtime::gpu::capture_graph(stream, [&] {
          for (int i = 0; i < launches; ++i) {
            record(i);
          }
        })) {}
  void replay(cudaStream_t stream) const {
    runtime::gpu::check(cudaGraphLaunch(graph_.get(), stream), "starting a graph");
  }
  int launches() const { return launches_; }

 private:
  int launches_;
  runtime::gpu::GraphHandle graph_;
};

/// Microseconds per launch of each graph: every round replays each graph once, and the result is a median
/// over rounds. A graph runs for `settle_milliseconds` before it is timed, so that clock and power settle at
/// its own level.
inline std::vector<double> time_graphs(cudaStream_t stream, std::span<const LaunchGraph> graphs, int rounds,
                                       double settle_milliseconds = 0) {
  const EventTimer timer(stream);
  const auto milliseconds = [&](const LaunchGraph& graph) {
    return timer.milliseconds([&] { graph.replay(stream); });
  };
  std::vector<std::vector<double>> times(graphs.size());
  for (const LaunchGraph& graph : graphs) {
    milliseconds(graph);  // warms up
  }
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t j = 0; j < graphs.size(); ++j) {
      // The order changes: no graph always runs after the same one.
      const std::size_t i = (j + static_cast<std::size_t>(round)) % graphs.size();
      for (double settled = 0; settled < settle_milliseconds;) {
        settled += milliseconds(graphs[i]);
      }
      times[i].push_back(1e3 * milliseconds(graphs[i]) / graphs[i].launches());
    }
  }
  std::vector<double> medians;
  for (const std::vector<double>& of_one : times) {
    medians.push_back(median(of_one));
  }
  return medians;
}

}  // namespace trit::bench
