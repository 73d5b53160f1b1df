// SPDX-License-Identifier: MIT
#include "runtime/memory_plan.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "trit/error.h"

namespace trit::runtime {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector
constexpr std::size_t kMaxArena = std::size_t{1} << 36;

}  // namespace

MemoryPlan plan_memory(std::span<const Lifetime> buffers) {
  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  MemoryPlan plan{std::vector<std::size_t>(buffers.size()), 0};
  std::vector<std::size_t> placed;  // by ascending offset
  for (const std::size_t index : order) {
    const Lifetime& buffer = buffers[index];
    if (buffer.bytes > kMaxArena) {
      throw Error("a buffer of " + std::to_string(buffer.bytes) + " bytes for activations, wanted at most " +
                  std::to_string(kMaxArena));
    }
    const std::size_t bytes = (buffer.bytes + kAlignment - 1) / kAlignment * kAlignment;
    std::size_t offset = 0;
    for (const std::size_t other : placed) {
      const Lifetime& neighbour = buffers[other];
      const bool together = neighbour.first <= buffer.last && buffer.first <= neighbour.last;
      if (!together) {
        continue;
      }
      if (offset + bytes <= plan.offsets[other]) {
        break;
      }
      offset = std::max(offset,
                        plan.offsets[other] + (neighbour.bytes + kAlignment - 1) / kAlignment * kAlignment);
    }
    plan.offsets[index] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes);
    const auto before = [&](std::size_t a, std::size_t b) { return plan.offsets[a] < plan.offsets[b]; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), index, before), index);
  }
  if (plan.bytes > kMaxArena) {
    throw Error("activations of " + std::to_string(plan.bytes) + " bytes, wanted at most " +
                std::to_string(kMaxArena));
  }
  return plan;
}

}  // namespace trit::runtime
