// SPDX-License-Identifier: MIT
#include "runtime/schedule.h"

#include <algorithm>
#include <numeric>

namespace trit::runtime {
namespace {

class Scheduler {
 public:
  explicit Scheduler(const Network& network)
      : nodes_(network.graph.nodes),
        readers_(nodes_.size(), 0),
        step_of_(nodes_.size(), kNone),
        runs_in_(nodes_.size(), kNone) {
    for (const Node& node : nodes_) {
      for (const std::size_t input : node.inputs) {
        ++readers_[input];
      }
    }
    schedule_.storage.resize(nodes_.size());
    std::iota(schedule_.storage.begin(), schedule_.storage.end(), std::size_t{0});
  }

  Schedule run() {
    for (std::size_t i = 1; i < nodes_.size(); ++i) {
      const Node& node = nodes_[i];
      if (node.op == Op::bit_linear) {
        schedule_.steps.emplace_back(BitLinearStep{i, node.inputs[0], i});
        step_of_[i] = runs_in_[i] = schedule_.steps.size() - 1;
      } else if (node.op == Op::relu && fuse_relu(i)) {
        continue;
      } else if (node.op == Op::flatten && !in_open_segment(node.inputs[0])) {
        schedule_.storage[i] = schedule_.storage[node.inputs[0]];
      } else {
        if (schedule_.steps.empty() || !std::holds_alternative<DenseSegment>(schedule_.steps.back())) {
          schedule_.steps.emplace_back(DenseSegment{});
        }
        std::get<DenseSegment>(schedule_.steps.back()).steps.push_back({i, node.inputs, i});
        step_of_[i] = runs_in_[i] = schedule_.steps.size() - 1;
      }
    }
    for (std::size_t s = 0; s < schedule_.steps.size(); ++s) {
      if (auto* segment = std::get_if<DenseSegment>(&schedule_.steps[s])) {
        find_boundary(*segment, s);
      }
    }
    return std::move(schedule_);
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  bool in_open_segment(std::size_t node) const {
    return step_of_[node] != kNone && step_of_[node] + 1 == schedule_.steps.size() &&
           std::holds_alternative<DenseSegment>(schedule_.steps.back());
  }

  /// A ReLU joins the layer in front of it where nobody else reads that layer's result.
  bool fuse_relu(std::size_t relu) {
    const std::size_t before = nodes_[relu].inputs[0];
    if (!has_weights(nodes_[before].op) || readers_[before] != 1) {
      return false;
    }
    auto& step = schedule_.steps[step_of_[before]];
    if (auto* ternary = std::get_if<BitLinearStep>(&step)) {
      ternary->output = relu;
      ternary->relu = true;
    } else {
      auto& dense = std::get<DenseSegment>(step).steps;
      const auto at =
          std::find_if(dense.begin(), dense.end(), [&](const DenseStep& d) { return d.node == before; });
      at->output = relu;
      at->relu = true;
    }
    step_of_[relu] = runs_in_[relu] = step_of_[before];
    step_of_[before] = kNone;  // the sums before the ReLU are nowhere
    return true;
  }

  void find_boundary(DenseSegment& segment, std::size_t index) const {
    const auto add = [](std::vector<std::size_t>& list, std::size_t node) {
      if (std::find(list.begin(), list.end(), node) == list.end()) {
        list.push_back(node);
      }
    };
    for (const DenseStep& step : segment.steps) {
      for (const std::size_t input : step.inputs) {
        if (step_of_[input] != index) {
          add(segment.inputs, input);
        }
      }
    }
    // A node outside that reads, or the model's end. Flattens between segments are such nodes too.
    for (std::size_t reader = 0; reader < nodes_.size(); ++reader) {
      for (const std::size_t input : nodes_[reader].inputs) {
        if (step_of_[input] == index && runs_in_[reader] != index) {
          add(segment.outputs, input);
        }
      }
    }
    if (step_of_.back() == index) {
      add(segment.outputs, nodes_.size() - 1);
    }
  }

  const std::vector<Node>& nodes_;
  std::vector<std::size_t> readers_;
  std::vector<std::size_t> step_of_;  // the step that makes the node's value; kNone if none does
  std::vector<std::size_t> runs_in_;  // the step that runs the node; kNone for a second name
  Schedule schedule_;
};

}  // namespace

Schedule make_schedule(const Network& network) { return Scheduler(network).run(); }

}  // namespace trit::runtime
