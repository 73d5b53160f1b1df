// SPDX-License-Identifier: MIT
//
// How decode divides a product between warps: strips of rows, warps along the rows (P), warps that share k
// (Q). With group scales and one strip a warp the Q warps share the tokens instead. Times below are of an H200.
#include <algorithm>
#include <string>

#include "cuda/common/plan_text.h"
#include "cuda/decode/decode.h"
#include "cuda/family.h"
#include "trit/error.h"

namespace trit::cuda {
namespace {

// Named barriers 1 .. 15, one for each q that several warps share.
constexpr int kMaxSharedParts = 15;

int k_tiles_of(const ProductShape& shape) {
  return static_cast<int>(ceil_div<std::int64_t>(shape.in_features, kTileInputs));
}

/// Tokens of a block. With group scales more of them are several blocks.
std::int64_t at_once(const ProductShape& shape) {
  return std::min<std::int64_t>(shape.tokens, kMaxDecodeTokens);
}

/// The launch of a plan; nothing where it does not fit in a block or in shared memory. `half`: group scales are
/// float16, if there are any.
std::optional<DecodeLaunch> launch_of(const Device& device, const DecodePlan& plan, const ProductShape& shape,
                                      bool half = false) {
  if (plan.row_warps * plan.k_warps > kMaxDecodeWarps ||
      (plan.row_warps > 1 && plan.k_warps > kMaxSharedParts)) {
    return std::nullopt;
  }
  const auto tokens = static_cast<int>(at_once(shape));
  const int k_tiles = k_tiles_of(shape);
  DecodeLaunch how{.plan = plan,
                   .blocks = ceil_div(strips_of(shape.out_features) / plan.strips, plan.row_warps),
                   .chunk_tiles = 0,
                   .x_stride = 0,
                   .sum_stride = plan.row_warps * plan.strips * kStripRows + kDecodeSumPadding,
                   .shared_bytes = 0};
  const Groups groups = groups_of_shape(shape.in_features, shape.group);
  const bool grouped = groups.count > 0;
  // One group's scales of a block's rows.
  const int scale_bytes = grouped ? plan.row_warps * plan.strips * kStripRows * (half ? 2 : 4) : 0;
  const int tile_scale_bytes =
      grouped ? scale_bytes * ceil_div(kTileInputs / groups.segment, groups.per_group) : 0;
  const GroupSumBytes group_sums = grouped ? group_sum_bytes(plan, tokens, groups) : GroupSumBytes{0, 0};
  const int sum_bytes = grouped ? group_sums.fixed : plan.k_warps * tokens * how.sum_stride * 4;
  const int fixed_bytes =
      round_up(sum_bytes, 16) + plan.k_warps * plan.row_warps * kDecodeDepth * plan.strips * kStripBytes;
  // Tiles of a part of x, for as many parts as there are, with a part's share of the scales and the segments' sums.
  const int bytes_per_part = (device.shared_bytes - fixed_bytes - scale_bytes) / plan.k_warps;
  const int max_part_tiles = std::min((bytes_per_part - tokens * kDecodeRowPadding) /
                                          (tokens * kTileInputs + tile_scale_bytes + group_sums.tile),
                                      kMaxTilesPerSum);
  if (max_part_tiles < 1) {
    return std::nullopt;
  }
  how.chunk_tiles = ceil_div(k_tiles, ceil_div(k_tiles, max_part_tiles * plan.k_warps));  // of one length
  how.x_stride = ceil_div(how.chunk_tiles, plan.k_warps) * kTileInputs + kDecodeRowPadding;
  how.shared_bytes = static_cast<unsigned>(
      fixed_bytes + tokens * plan.k_warps * how.x_stride + how.chunk_tiles * group_sums.tile +
      (grouped ? groups_in_chunk(how.chunk_tiles, groups) * scale_bytes : 0));
  return how;
}

/// With group scales and all of k by one warp (one strip): whether a plan fits in a block and in shared memory.
bool fits_whole(const Device& device, const DecodePlan& plan, const ProductShape& shape) {
  const Groups groups = groups_of_shape(shape.in_features, shape.group);
  return plan.row_warps >= 1 && plan.k_warps >= 1 && plan.k_warps <= (at_once(shape) > 8 ? 2 : 1) &&
         plan.row_warps * plan.k_warps <= kMaxDecodeWarps &&
         kStages * stage_bytes(plan, static_cast<int>(at_once(shape)), groups, false).all() <=
             device.shared_bytes;
}

/// With group scales: one strip a warp and all of k where a multiprocessor has rows for enough such warps. Times of 16
/// tokens with this form and with shared k: 6912 x 2560 4.6 and 5.2 us, 14336 x 4096 8.7 and 13.2, 28672 x 8192 24.2 and
/// 39.1; but 4096 x 4096 5.9 and 5.1. Of 2 tokens: 14336 x 4096 7.3 and 6.7.
std::optional<DecodePlan> choose_whole(const Device& device, const ProductShape& shape) {
  const std::int64_t strips =
      strips_of(shape.out_features) * ceil_div<std::int64_t>(shape.tokens, kMaxDecodeTokens);
  const auto rows = static_cast<int>(
      std::min<std::int64_t>(ceil_div<std::int64_t>(strips, device.multiprocessors), 2 * kMaxDecodeWarps));
  // Two blocks of half as many warps start sooner: 28672 x 8192, 14 warps 26.5 us, 7 warps 24.2.
  DecodePlan plan{.strips = 1, .row_warps = rows <= 8 ? rows : std::min(ceil_div(rows, 2), 8), .k_warps = 1};
  while (plan.row_warps > 1 && !fits_whole(device, plan, shape)) {
    plan.row_warps = ceil_div(plan.row_warps, 2);
  }
  return rows >= (at_once(shape) > 8 ? 3 : 9) && fits_whole(device, plan, shape) ? std::optional(plan)
                                                                                 : std::nullopt;
}

/// Warps of a block along the rows, so that the blocks are one wave.
int row_warps_of(int strips, int strips_of_matrix, int multiprocessors) {
  const int row_warps = std::min(ceil_div(strips_of_matrix / strips, multiprocessors), kMaxDecodeWarps / 2);
  return row_warps == 7 ? 8 : row_warps;  // 16 warps a block, not 14
}

std::optional<ProductPlan> choose(const Device& device, const ProductShape& shape) {
  const bool grouped = shape.group > 0;
  if (grouped) {
    if (const auto whole = choose_whole(device, shape)) {
      return *whole;
    }
  }
  const std::int64_t tokens = at_once(shape);
  const int k_tiles = k_tiles_of(shape);
  // Of all blocks, 16 tokens each.
  const auto strips = static_cast<int>(std::min<std::int64_t>(
      strips_of(shape.out_features) * ceil_div<std::int64_t>(shape.tokens, kMaxDecodeTokens), 1 << 20));
  // One wave: as many warps along the rows as it takes, the others split k. Beyond four along the rows (2 KB
  // of weights in flight for each would be too little) a warp takes four strips instead.
  DecodePlan plan{.strips = 2, .row_warps = row_warps_of(2, strips, device.multiprocessors), .k_warps = 0};
  int warps = kMaxDecodeWarps;
  if (shape.tokens <= 8 && plan.row_warps > 4) {
    plan.strips = 4;
    plan.row_warps = row_warps_of(4, strips, device.multiprocessors);
  } else if (shape.tokens <= 8 && plan.row_warps > 2) {
    // Two blocks a multiprocessor: with programmatic launch 6.1 us instead of 6.7 (14336 x 4096), without it
    // 7.9 instead of 7.2.
    plan.row_warps = 2;
    warps = grouped ? 8 : 10;
  } else if (plan.row_warps == 1 && k_tiles * ceil_div<std::int64_t>(tokens, 8) <= 48) {
    warps = 12;  // 4096 x 4096, 8 tokens: 2.9 us instead of 3.1
  }
  // All warps, fewer only where that keeps x in one piece: a second chunk of k is another trip to memory
  // (8192 x 8192, 16 tokens: 10.5 us with 16 warps, 8.5 with 12).
  const int max_k_warps =
      std::min({warps / plan.row_warps, k_tiles, plan.row_warps > 1 ? kMaxSharedParts : kMaxDecodeWarps});
  // With group scales exactly half as well (4096 x 14336, 8 tokens: 9.2 us with 8 warps, 10.6 with 16).
  const int min_k_warps = std::max(max_k_warps / 2 + (grouped ? 0 : 1), 1);
  for (plan.k_warps = max_k_warps; plan.k_warps >= min_k_warps; --plan.k_warps) {
    const auto how = launch_of(device, plan, shape, true);
    if (how && how->chunk_tiles == k_tiles && launch_of(device, plan, shape)) {
      return plan;
    }
  }
  plan.k_warps = max_k_warps;
  while (!launch_of(device, plan, shape)) {
    if (plan.k_warps > 1) {
      --plan.k_warps;
    } else if (plan.row_warps > 1) {
      plan.row_warps = ceil_div(plan.row_warps, 2);
    } else {
      throw Error("cuda: decode of " + std::to_string(tokens) + " tokens needs more shared memory than " +
                  std::to_string(device.shared_bytes) + " bytes");
    }
  }
  return plan;
}

bool fits(const Device& device, const ProductPlan& of, const ProductShape& shape) {
  const auto& plan = std::get<DecodePlan>(of);
  if (shape.group > 0 && plan.strips == 1) {
    return fits_whole(device, plan, shape);
  }
  return (shape.tokens <= kMaxDecodeTokens || shape.group > 0) &&
         (plan.strips == 2 || (plan.strips == 4 && shape.tokens <= 8)) && plan.row_warps >= 1 &&
         plan.row_warps <= 8 && plan.k_warps >= 1 && plan.k_warps <= k_tiles_of(shape) &&
         launch_of(device, plan, shape).has_value();
}

void add_candidates(std::vector<ProductPlan>& plans, const Device& device, const ProductShape& shape) {
  if (shape.tokens > (shape.group > 0 ? 2 * kMaxDecodeTokens : kMaxDecodeTokens)) {
    return;
  }
  const int groups_of_64 = static_cast<int>(ceil_div<std::int64_t>(shape.out_features, 64));
  if (shape.group > 0) {
    for (std::int32_t row_warps = 1; row_warps <= kMaxDecodeWarps; ++row_warps) {
      for (std::int32_t k_warps = 1; k_warps <= 2; ++k_warps) {
        const DecodePlan plan{1, row_warps, k_warps};
        if (ceil_div(groups_of_64 * 4, row_warps) <= 4 * device.multiprocessors &&
            fits(device, plan, shape)) {
          plans.emplace_back(plan);
        }
      }
    }
  }
  for (std::int32_t strips = 2; strips <= (shape.tokens <= 8 ? 4 : 2); strips += 2) {
    for (std::int32_t row_warps = 1; row_warps <= 8; ++row_warps) {
      for (std::int32_t k_warps = 1; k_warps <= 16; ++k_warps) {
        const DecodePlan plan{strips, row_warps, k_warps};
        // Fewer than half of the warps of a wave, or more than one wave of three blocks each, were never
        // fast.
        const int blocks = ceil_div(groups_of_64 * 4 / strips, row_warps);
        if (blocks * row_warps * k_warps >= 6 * device.multiprocessors &&
            blocks <= 4 * device.multiprocessors && fits(device, plan, shape)) {
          plans.emplace_back(plan);
        }
      }
    }
  }
}

bool run(const Device& device, const ProductPlan& plan, const Product& args, Stream stream) {
  const ProductShape shape{args.tokens, args.out_features, args.in_features, args.group};
  if (!fits(device, plan, shape)) {
    return false;
  }
  const auto& of = std::get<DecodePlan>(plan);
  const ProductArguments arguments = product_arguments(args);
  if (args.group == 0) {
    launch_decode(*launch_of(device, of, shape), arguments, args.programmatic, stream);
  } else if (of.strips == 1) {
    launch_decode_whole_groups(of, arguments, groups_of_product(args), args.programmatic, stream);
  } else {
    launch_decode_groups(*launch_of(device, of, shape, args.group_scale_type == DataType::float16), arguments,
                         groups_of_product(args), args.programmatic, stream);
  }
  return true;
}

std::string name(const ProductPlan& of) {
  const auto& plan = std::get<DecodePlan>(of);
  return "decode S" + std::to_string(plan.strips) + " P" + std::to_string(plan.row_warps) + " Q" +
         std::to_string(plan.k_warps);
}

std::optional<ProductPlan> parse(std::string_view text) {
  DecodePlan plan{};
  return matches(text, "decode S", plan.strips, " P", plan.row_warps, " Q", plan.k_warps)
             ? std::optional<ProductPlan>(plan)
             : std::nullopt;
}

}  // namespace

const Family kDecode = {.fits = fits,
                        .plan = choose,
                        .add_candidates = add_candidates,
                        .workspace_bytes = nullptr,
                        .launch = run,
                        .name = name,
                        .parse = parse};

}  // namespace trit::cuda
