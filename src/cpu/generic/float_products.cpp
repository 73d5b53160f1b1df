// SPDX-License-Identifier: MIT
//
// The float products of a backward: C [R, S] = A [R, D] · B [D, S] in parts, A of floats, B of weights or
// activations. A part of A stays in the second-level cache while panels of B go by.
#include <algorithm>
#include <string>

#include "base/buffer.h"
#include "base/integer.h"
#include "cpu/table.h"
#include "trit/error.h"
#include "trit/linear.h"

namespace trit {
namespace {

constexpr std::int64_t kStep = 32;
/// Of A, as a whole, where that can be chosen.
constexpr std::int64_t kArrangedBytes = std::int64_t{32} << 20;
/// Results from this size on are written past the caches, which they would not fit.
constexpr std::int64_t kNonTemporalBytes = std::int64_t{8} << 20;

const FloatProductKernel& kernel_of(const CpuKernels& kernels) {
  if (!has_float_products(kernels)) {
    throw Error("float products of a backward: this CPU has no kernel for them");
  }
  return *kernels.float_product;
}

struct PartsTag {};
struct PairsTag {};

}  // namespace

bool has_float_products(const CpuKernels& kernels) {
  return kernels.float_product != nullptr && kernels.float_product->available();
}

// A = dY times beta, R tokens, D outputs; B = t, from the codes just before it is multiplied.
void gradient_input(const CpuKernels& kernels, Parallel& parallel, const FloatGradientInput& args) {
  const FloatProductKernel& kernel = kernel_of(kernels);
  const std::int64_t outputs = args.weight.out_features;
  const std::int64_t inputs = args.weight.in_features;
  const std::int64_t row_bytes = packed_row_bytes(inputs);
  const std::int64_t steps = ceil_div(outputs, kStep);
  const std::int64_t panels = ceil_div(inputs, kernel.columns);
  const bool per_row = args.weight.scale.size() > 1;
  for (std::int64_t first = 0; first < args.tokens; first += kernel.max_tokens) {
    const std::int64_t tokens = std::min(kernel.max_tokens, args.tokens - first);
    const std::int64_t blocks = ceil_div(tokens, kernel.rows);
    // At least 8, so that dX is read and written again rarely, but no more than there are.
    const std::int64_t part_steps =
        std::min({steps, kernel.max_steps,
                  std::max<std::int64_t>(kernel.cached_bytes / (blocks * kernel.parts_bytes), 8)});
    auto* const parts = reinterpret_cast<std::int8_t*>(
        thread_buffer<PartsTag>(static_cast<std::size_t>(blocks * steps * kernel.parts_bytes)));
    // Part by part of D, in it block by block of rows.
    const auto at = [&](std::int64_t block, std::int64_t step) {
      const std::int64_t begin = step / part_steps * part_steps;
      const std::int64_t count = std::min(part_steps, steps - begin);
      return parts + (begin * blocks + block * count + step - begin) * kernel.parts_bytes;
    };
    parallel.run(blocks * steps, [&](std::int64_t task) {
      const std::int64_t block = task % blocks;
      const std::int64_t step = task / blocks;
      const std::int64_t token = first + block * kernel.rows;
      const std::int64_t output = step * kStep;
      kernel.rows_to_parts({.values = args.grad + token * outputs + output,
                            .stride = outputs,
                            .rows = std::min(kernel.rows, first + tokens - token),
                            .columns = std::min(kStep, outputs - output),
                            .row_scale = nullptr,
                            .column_scale = per_row ? args.weight.scale.data() + output : nullptr,
                            .scale = per_row ? 1.0F : args.weight.scale[0]},
                           at(block, step));
    });
    const std::int64_t tasks = std::min<std::int64_t>(panels, parallel.threads());
    parallel.run(tasks, [&](std::int64_t task) {
      auto* const pairs = reinterpret_cast<std::int8_t*>(
          thread_buffer<PairsTag>(static_cast<std::size_t>(part_steps * kernel.pairs_bytes)));
      for (std::int64_t begin = 0; begin < steps; begin += part_steps) {
        const std::int64_t count = std::min(part_steps, steps - begin);
        for (std::int64_t panel = task * panels / tasks; panel < (task + 1) * panels / tasks; ++panel) {
          const std::int64_t column = panel * kernel.columns;
          const std::int64_t columns = std::min(kernel.columns, inputs - column);
          for (std::int64_t step = 0; step < count; ++step) {
            const std::int64_t output = (begin + step) * kStep;
            kernel.codes_to_pairs(args.weight.codes.data() + output * row_bytes + column / 4, row_bytes,
                                  std::min(kStep, outputs - output), columns,
                                  pairs + step * kernel.pairs_bytes);
          }
          kernel.product({.parts = at(0, begin),
                          .block_bytes = count * kernel.parts_bytes,
                          .pairs = pairs,
                          .steps = count,
                          .rows = tokens,
                          .columns = columns,
                          .c = args.grad_x + first * inputs + column,
                          .stride = inputs,
                          .add = begin > 0,
                          .non_temporal = false});
        }
      }
    });
  }
}

// A = dYᵀ times s, R outputs, D tokens; B = q.
void gradient_weight(const CpuKernels& kernels, Parallel& parallel, const FloatGradientWeight& args) {
  constexpr std::int64_t kMinSteps = 8;
  constexpr std::int64_t kMaxSteps = 64;
  const FloatProductKernel& kernel = kernel_of(kernels);
  const std::int64_t outputs = args.out_features;
  const std::int64_t inputs = args.in_features;
  const std::int64_t stride = padded_in_features(inputs);
  const std::int64_t blocks = ceil_div(outputs, kernel.rows);
  const std::int64_t panels = ceil_div(inputs, kernel.columns);
  // At once; each time dW is read and written.
  const std::int64_t tokens_at_once = kStep * std::clamp(kArrangedBytes / (blocks * kernel.parts_bytes),
                                                         kMinSteps, std::min(kMaxSteps, kernel.max_steps));
  if (args.tokens == 0) {
    std::fill_n(args.grad_weight, outputs * inputs, 0.0F);
  }
  for (std::int64_t first = 0; first < args.tokens; first += tokens_at_once) {
    const std::int64_t tokens = std::min(tokens_at_once, args.tokens - first);
    const std::int64_t steps = ceil_div(tokens, kStep);
    const std::int64_t block_bytes = steps * kernel.parts_bytes;
    const std::int64_t panel_bytes = steps * kernel.pairs_bytes;
    auto* const parts = reinterpret_cast<std::int8_t*>(
        thread_buffer<PartsTag>(static_cast<std::size_t>(blocks * block_bytes)));
    auto* const pairs = reinterpret_cast<std::int8_t*>(
        thread_buffer<PairsTag>(static_cast<std::size_t>(panels * panel_bytes)));
    // Few steps: their columns are shared out as well.
    const std::int64_t shares = std::min<std::int64_t>(ceil_div(std::int64_t{4} * parallel.threads(), steps),
                                                       std::max(blocks, panels));
    parallel.run(steps * shares, [&](std::int64_t task) {
      const std::int64_t step = task / shares;
      const std::int64_t share = task % shares;
      const std::int64_t token = first + step * kStep;
      const std::int64_t rows = std::min(kStep, first + tokens - token);
      for (std::int64_t i = share * blocks / shares; i < (share + 1) * blocks / shares; ++i) {
        kernel.columns_to_parts({.values = args.grad + token * outputs + i * kernel.rows,
                                 .stride = outputs,
                                 .rows = rows,
                                 .columns = std::min(kernel.rows, outputs - i * kernel.rows),
                                 .row_scale = args.scale + token,
                                 .column_scale = nullptr,
                                 .scale = 1.0F},
                                parts + i * block_bytes + step * kernel.parts_bytes);
      }
      for (std::int64_t i = share * panels / shares; i < (share + 1) * panels / shares; ++i) {
        kernel.integers_to_pairs(args.q + token * stride + i * kernel.columns, stride, rows,
                                 std::min(kernel.columns, inputs - i * kernel.columns),
                                 pairs + i * panel_bytes + step * kernel.pairs_bytes);
      }
    });
    // Groups of blocks that stay in a cache, as even as can be, cut along the panels too: threads get as many tasks
    // each, whatever their size.
    const std::int64_t largest = std::clamp<std::int64_t>(kernel.cached_bytes / block_bytes, 1, blocks);
    const std::int64_t group = ceil_div(blocks, ceil_div(blocks, largest));
    const std::int64_t groups = ceil_div(blocks, group);
    const std::int64_t cuts =
        std::clamp<std::int64_t>(ceil_div(std::int64_t{16} * parallel.threads(), groups), 1, panels);
    const bool last = first + tokens == args.tokens;
    const bool large = outputs * inputs * std::int64_t{sizeof(float)} >= kNonTemporalBytes;
    parallel.run(groups * cuts, [&](std::int64_t task) {
      const std::int64_t block = task / cuts * group;
      const std::int64_t cut = task % cuts;
      const std::int64_t output = block * kernel.rows;
      for (std::int64_t panel = cut * panels / cuts; panel < (cut + 1) * panels / cuts; ++panel) {
        const std::int64_t column = panel * kernel.columns;
        kernel.product({.parts = parts + block * block_bytes,
                        .block_bytes = block_bytes,
                        .pairs = pairs + panel * panel_bytes,
                        .steps = steps,
                        .rows = std::min(group * kernel.rows, outputs - output),
                        .columns = std::min(kernel.columns, inputs - column),
                        .c = args.grad_weight + output * inputs + column,
                        .stride = inputs,
                        .add = first > 0,
                        .non_temporal = last && large});
      }
    });
  }
}

}  // namespace trit
