// SPDX-License-Identifier: MIT
//
// decode_one: the product for one token, bound by reading the weights and by latencies. It has two kernels;
// this file chooses between them and divides the work.
//
// Measured on an H200: eight shapes, both kernels, strips of 1, 2 and 4, one to four tiles in registers,
// rings of 2, 4 and 6 tiles, every P and Q.
#include <algorithm>

#include "cuda/decode_one/decode_one.h"
#include "cuda/family.h"

namespace trit::cuda {
namespace one {
namespace {

constexpr int kMaxInputs = 65536;
constexpr int kMaxBlocks = 32;  // of a multiprocessor

/// Short parts of k, in one wave of blocks; nothing where they would be more.
std::optional<Launch> direct_launch(const Device& device, int k_tiles, int strips, const Groups& groups,
                                    bool programmatic) {
  const bool grouped = groups.count > 0;
  if (grouped && (groups.per_group > 1 || groups.segment < 64)) {
    return std::nullopt;
  }
  // Of a multiprocessor's registers: 64 warps of 32, 42 of 48, 36 of 56.
  struct Form {
    int strips, tiles, warps;
  };
  for (const Form form : {Form{1, 1, 64}, Form{2, 1, 42}, Form{2, 2, 36}}) {
    const int k_warps = ceil_div(k_tiles, form.tiles);
    const int blocks = strips / form.strips;
    // With group scales 32 warps of one tile are slower than 16 of two (4096 x 4096: 2.36 us and 2.29).
    if (grouped && form.tiles == 1 && k_warps > 24) {
      continue;
    }
    if (k_warps * 32 > kMaxDirectThreads || ((programmatic || grouped) && form.strips == 1) ||
        blocks > device.multiprocessors * std::min(form.warps / k_warps, kMaxBlocks)) {
      continue;
    }
    return Launch{.strips = form.strips,
                  .tiles = form.tiles,
                  .row_warps = 1,
                  .k_warps = k_warps,
                  .blocks = blocks,
                  .shared_bytes = static_cast<unsigned>(
                      grouped ? direct_groups_shared_bytes(k_warps, form.tiles, groups)
                              : kDirectHeaderBytes + k_warps * form.tiles * kTileInputs)};
  }
  return std::nullopt;
}

std::optional<Launch> ring_launch(const Device& device, int k_tiles, int strips, const Groups& groups,
                                  bool programmatic) {
  int warps = kMaxRingWarps;
  int row_warps = ceil_div(strips / kRingStrips, device.multiprocessors);  // one block a multiprocessor
  if (row_warps > 4) {
    // Several waves of small blocks.
    row_warps = 1;
    warps = programmatic ? 8 : 6;
  } else if (programmatic && row_warps > 2) {
    row_warps = 2;
    warps = 12;
  }
  // The fewest warps whose longest part of k is as short; fewer where they do not fit.
  for (int max_k_warps = std::min(warps / row_warps, k_tiles); max_k_warps > 0; --max_k_warps) {
    Launch how{.strips = kRingStrips,
               .tiles = 0,
               .row_warps = row_warps,
               .k_warps = ceil_div(k_tiles, ceil_div(k_tiles, max_k_warps)),
               .blocks = ceil_div(strips / kRingStrips, row_warps),
               .shared_bytes = 0};
    how.shared_bytes = ring_bytes(how, k_tiles, groups).all(how);
    if (how.shared_bytes <= static_cast<unsigned>(device.shared_bytes) &&
        ceil_div(k_tiles, how.k_warps) <= kMaxTilesPerPart) {
      return how;
    }
  }
  return std::nullopt;
}

std::optional<Launch> launch_of(const Device& device, const ProductShape& shape, bool programmatic) {
  if (shape.tokens != 1 || shape.in_features > kMaxInputs) {
    return std::nullopt;
  }
  const int k_tiles = static_cast<int>(ceil_div<std::int64_t>(shape.in_features, kTileInputs));
  const int strips = strips_of(shape.out_features);
  const Groups groups = groups_of_shape(shape.in_features, shape.group);
  const auto direct = direct_launch(device, k_tiles, strips, groups, programmatic);
  return direct ? direct : ring_launch(device, k_tiles, strips, groups, programmatic);
}

bool fits(const Device& device, const ProductPlan& /*plan*/, const ProductShape& shape) {
  return launch_of(device, shape, false) && launch_of(device, shape, true);
}

std::optional<ProductPlan> choose(const Device& device, const ProductShape& shape) {
  return fits(device, DecodeOnePlan{}, shape) ? std::optional<ProductPlan>(DecodeOnePlan{}) : std::nullopt;
}

void add_candidates(std::vector<ProductPlan>& plans, const Device& device, const ProductShape& shape) {
  if (fits(device, DecodeOnePlan{}, shape)) {
    plans.emplace_back(DecodeOnePlan{});
  }
}

bool run(const Device& device, const ProductPlan& /*plan*/, const Product& args, Stream stream) {
  const auto how =
      launch_of(device, {args.tokens, args.out_features, args.in_features, args.group}, args.programmatic);
  if (how) {
    const ProductArguments arguments = product_arguments(args);
    const bool direct = how->tiles > 0;
    if (args.group > 0) {
      (direct ? launch_direct_groups : launch_ring_groups)(*how, arguments, groups_of_product(args),
                                                           args.programmatic, stream);
    } else {
      (direct ? launch_direct : launch_ring)(*how, arguments, args.programmatic, stream);
    }
  }
  return how.has_value();
}

std::string name(const ProductPlan& /*plan*/) { return "decode_one"; }

std::optional<ProductPlan> parse(std::string_view text) {
  return text == "decode_one" ? std::optional<ProductPlan>(DecodeOnePlan{}) : std::nullopt;
}

}  // namespace
}  // namespace one

const Family kDecodeOne = {.fits = one::fits,
                           .plan = one::choose,
                           .add_candidates = one::add_candidates,
                           .workspace_bytes = nullptr,
                           .launch = one::run,
                           .name = one::name,
                           .parse = one::parse};

}  // namespace trit::cuda
