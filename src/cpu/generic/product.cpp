// SPDX-License-Identifier: MIT
//
// Loop order, outermost first:
//   task          a block of panels x a block of tokens; few tokens: cut along the panels alone, so that each
//                 weight is read by one thread
//   token block   as many tokens as keep their q in half of an L2 cache
//   panel         read from memory once per token block, then from L2
//   token tile    max_tokens or, as evenly as they divide, a few less: 7 tokens in tiles of 6 are 4 + 3,
//                 since a tile of one has too few independent sums to fill the pipes
//   k range       one, unless K is longer than the kernel's sums or the caches allow; with group scales a
//                 group, or, if the layout has a kernel for them, as many groups as the caches allow
// With 64-row panels and K = 4096 a panel is 64 KiB; one tile of 6 tokens does 24 dot products per 64 bytes
// of it, so L2 gives what is needed several times over.
#include "cpu/generic/product.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/integer.h"
#include "cpu/generic/group_sums.h"
#include "cpu/generic/k_ranges.h"
#include "cpu/generic/many_tokens.h"

namespace trit::generic {
namespace {

// q of a token block: half of the smallest L2 that AVX-512 machines have.
constexpr std::int64_t kTokenBlockBytes = 512 << 10;
// k of a range where a panel is used more than once: 512 KiB of a 64-row panel.
constexpr std::int64_t kCachedInputs = 32768;
// Multiply-adds per task, about 5 us at 64 a cycle.
constexpr std::int64_t kWorkPerTask = 1 << 20;

// The sums of a tile, those of its next range of k, and with group scales the scaled ones: a layout's tile may
// be larger than a stack should hold.
struct TileSums {
  explicit TileSums(const PanelLayout& layout)
      : size(layout.max_tokens * layout.panel_rows),
        acc(reinterpret_cast<std::int32_t*>(
            thread_buffer<TileSums>(static_cast<std::size_t>(3 * size) * sizeof(std::int32_t)))),
        partial(acc + size),
        scaled(reinterpret_cast<float*>(partial + size)) {}

  std::int64_t size;
  std::int32_t* acc;
  std::int32_t* partial;
  float* scaled;
};

// What all tiles of a product read besides panels and q: one of the two.
struct SumsOfQ {
  std::optional<KRanges> ranges;
  std::optional<GroupOffsets> offsets;  // where the layout has a kernel for groups
  std::int64_t groups_of_range = 0;     // of that kernel
};

// Brings the lines of y that a tile will write into L1 while the tile runs. Its rows are far apart: left to
// the stores, each line costs its latency.
void prefetch_outputs(const Product& args, std::int64_t row, std::int64_t rows, Part tokens) {
  constexpr std::int64_t kLine = 64;
  constexpr std::int64_t kMaxPrefetchedTokens =
      16;  // more are better left to the stores than put out of L1 again
  const std::int64_t bytes = rows * static_cast<std::int64_t>(size_of(args.y_type));
  for (std::int64_t token = tokens.begin; token < std::min(tokens.end, tokens.begin + kMaxPrefetchedTokens);
       ++token) {
    const std::uint8_t* y = output(args, token, row);
    for (std::int64_t at = 0; at < bytes; at += kLine) {
      __builtin_prefetch(y + at, 1);
    }
  }
}

// Tokens of one tile: as many as the layout takes, unless their q alone would be more than a token block.
std::int64_t tile_tokens(const PanelLayout& layout, std::int64_t padded) {
  return std::clamp<std::int64_t>(kTokenBlockBytes / padded, 1, layout.max_tokens);
}

// Where a panel is used by several tiles, each of the first ones fetches its share of the next panel: else
// the memory would rest during all but the first. Time over that without it, one Xeon core, 4096 x 4096 from
// memory, 2-bit: 0.94, 0.91, 0.90 for 7, 8, 16 tokens; base-3: 0.97, 0.96, 0.91.
constexpr std::int64_t kMaxPrefetchParts = 8;

// `begin` is the byte of the panel where this range of k starts.
void fetch_next_panel(ProductTile& one, std::int64_t panel_bytes, std::int64_t begin, std::int64_t tile,
                      std::int64_t tiles) {
  if (tile >= kMaxPrefetchParts) {
    one.prefetch_distance = 0;  // the line itself again and again
    one.prefetch_parts = std::numeric_limits<std::int32_t>::max();
    return;
  }
  one.prefetch_parts = std::min(tiles, kMaxPrefetchParts);
  one.prefetch_distance = panel_bytes - begin + (tile * panel_bytes + begin) / one.prefetch_parts;
}

// A tile and the panel's share of what is in memory.
struct TilePlace {
  std::int64_t panel;
  Part tokens;
  std::int64_t tile;  // of the block's
  std::int64_t tiles;
};

ProductTile product_tile(const Product& args, const TilePlace& place, Part k) {
  const std::int64_t padded = padded_in_features(args.in_features);
  const std::int64_t panel_bytes = padded / 4 * args.layout.panel_bytes_per_4;
  const std::int64_t begin = k.begin / 4 * args.layout.panel_bytes_per_4;
  ProductTile tile{
      .panel = args.panels + place.panel * panel_bytes + begin,
      .q = args.x.q + place.tokens.begin * padded + k.begin,
      .q_stride = padded,
      .k = k.size(),
      .tokens = place.tokens.size(),
      .q_sum = nullptr,
      .acc = nullptr,
  };
  if (place.tiles > 1) {
    fetch_next_panel(tile, panel_bytes, begin, place.tile, place.tiles);
  }
  return tile;
}

// Sums of the tile by the layout's kernel for groups, into sums.scaled.
void multiply_groups(const Product& args, const GroupOffsets& offsets, std::int64_t groups_of_range,
                     TileSums& sums, const TilePlace& place) {
  const std::int64_t padded = padded_in_features(args.in_features);
  const std::int64_t groups = groups_of(args.in_features, args.group);
  // Of a group, or from a panel's to the next one's.
  const std::int64_t group_bytes = args.layout.panel_rows * scale_bytes(args.group_scales.type);
  const std::int64_t groups_ahead =
      ceil_div(ProductTile{}.prefetch_distance / args.layout.panel_bytes_per_4, args.group / 4);
  for (std::int64_t group = 0; group < groups; group += groups_of_range) {
    const Part k{group * args.group, std::min(padded, (group + groups_of_range) * args.group)};
    args.layout.groups->tile(
        {.tile = product_tile(args, place, k),
         .group = args.group,
         .offsets = offsets.of(place.tokens.begin, group),
         .offsets_stride = offsets.stride(),
         .weight_scale = scales_of(args, place.panel, group),
         .scale_prefetch_distance = group_bytes * (place.tiles > 1 ? groups : groups_ahead),
         .token_scale = args.x.group == 0 ? nullptr : args.x.scale + place.tokens.begin * groups + group,
         .token_scale_stride = groups,
         .sums = sums.scaled});
  }
}

// The same, or without group scales sums.acc, range by range.
void multiply_ranges(const Product& args, const KRanges& ranges, TileSums& sums, const TilePlace& place) {
  const PanelLayout& layout = args.layout;
  const Part tokens = place.tokens;
  for (std::int64_t at = 0; at < ranges.count(); ++at) {
    const KRanges::Range& range = ranges[at];
    ProductTile tile = product_tile(args, place, range.k);
    tile.q_sum = ranges.sums(at) + tokens.begin;
    tile.acc = range.begins_sum ? sums.acc : sums.partial;
    layout.product_tile(tile);
    if (!range.begins_sum) {
      std::transform(sums.acc, sums.acc + tokens.size() * layout.panel_rows, sums.partial, sums.acc,
                     std::plus<>());
    }
    for (std::int64_t i = 0; args.group != 0 && range.ends_sum && i < tokens.size(); ++i) {
      args.kernels.group_row({.acc = sums.acc + i * layout.panel_rows,
                              .weight_scale = scales_of(args, place.panel, range.group),
                              .token_scale = token_scale_of(args, tokens.begin + i, range.group),
                              .sums = sums.scaled + i * layout.panel_rows},
                             layout.panel_rows);
    }
  }
}

void run_tile(const Product& args, const SumsOfQ& of_q, TileSums& sums, const TilePlace& place) {
  const PanelLayout& layout = args.layout;
  const std::int64_t row = place.panel * layout.panel_rows;
  prefetch_outputs(args, row, std::min(layout.panel_rows, args.out_features - row), place.tokens);
  if (args.group != 0) {
    std::fill_n(sums.scaled, place.tokens.size() * layout.panel_rows, 0.0F);
  }
  if (of_q.offsets) {
    multiply_groups(args, *of_q.offsets, of_q.groups_of_range, sums, place);
  } else if (of_q.ranges) {
    multiply_ranges(args, *of_q.ranges, sums, place);
  }
  for (std::int64_t i = 0; i < place.tokens.size(); ++i) {
    epilogue(args, place.panel, place.tokens.begin + i, sums.acc + i * layout.panel_rows,
             args.group == 0 ? nullptr : sums.scaled + i * layout.panel_rows);
  }
}

void run_block(const Product& args, const SumsOfQ& of_q, Part panels, Part tokens) {
  const PanelLayout& layout = args.layout;
  const std::int64_t padded = padded_in_features(args.in_features);
  const std::int64_t most = tile_tokens(layout, padded);
  const std::int64_t tiles_per_block = std::max<std::int64_t>(1, kTokenBlockBytes / padded / most);
  const std::int64_t blocks = ceil_div(tokens.size(), tiles_per_block * most);
  TileSums sums(layout);
  for (std::int64_t block = 0; block < blocks; ++block) {
    const Part in_block = part_of(tokens.size(), blocks, block);
    const std::int64_t tiles = ceil_div(in_block.size(), most);
    const auto tile_part = [&](std::int64_t tile) {
      const Part in_tile = part_of(in_block.size(), tiles, tile);
      const std::int64_t first = tokens.begin + in_block.begin;
      return Part{first + in_tile.begin, first + in_tile.end};
    };
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        run_tile(args, of_q, sums, {panel, tile_part(tile), tile, tiles});
      }
    }
  }
}

}  // namespace

std::uint8_t* output(const Product& args, std::int64_t token, std::int64_t row) {
  return static_cast<std::uint8_t*>(args.y) +
         (token * args.out_features + row) * static_cast<std::int64_t>(size_of(args.y_type));
}

void epilogue(const Product& args, std::int64_t panel, std::int64_t token, const std::int32_t* acc,
              const float* sums) {
  static constexpr float kOne = 1.0F;
  const std::int64_t row = panel * args.layout.panel_rows;
  args.kernels.epilogue_row({
      .acc = acc,
      .rows = std::min(args.layout.panel_rows, args.out_features - row),
      .token_scale = args.x.group == 0 ? args.x.scale[token] : 1.0F,
      .weight_scale = args.group != 0 ? &kOne : args.weight_scale + (args.weight_scale_per_row ? row : 0),
      .weight_scale_per_row = args.group == 0 && args.weight_scale_per_row,
      .bias = args.bias == nullptr ? nullptr : args.bias + row,
      .y_type = args.y_type,
      .y = output(args, token, row),
      .sums = sums,
  });
}

void product_tiles(Parallel& parallel, const Product& args, Part panels, Part tokens) {
  if (panels.size() == 0 || tokens.size() == 0) {
    return;
  }
  const PanelLayout& layout = args.layout;
  const std::int64_t tiles =
      ceil_div(tokens.size(), tile_tokens(layout, padded_in_features(args.in_features)));
  const std::int64_t max_k = tiles == 1 ? layout.max_k : std::min(layout.max_k, kCachedInputs);
  SumsOfQ of_q;
  if (args.group != 0 && has_group_kernel(args)) {
    of_q.offsets.emplace(parallel, args);
    of_q.groups_of_range = std::max<std::int64_t>(1, max_k / args.group);
  } else {
    of_q.ranges.emplace(parallel, args.x, args.in_features, args.group, max_k);
  }

  const std::int64_t work = tokens.size() * panels.size() * layout.panel_rows * args.in_features;
  const std::int64_t wanted = task_count(parallel, panels.size() * tiles, work, kWorkPerTask);
  const std::int64_t panel_parts = std::min(panels.size(), wanted);
  const std::int64_t token_parts = std::min(tiles, ceil_div(wanted, panel_parts));
  run_tasks(parallel, panel_parts * token_parts, [&](std::int64_t task) {
    const Part panel = part_of(panels.size(), panel_parts, task / token_parts);
    const Part token = part_of(tokens.size(), token_parts, task % token_parts);
    run_block(args, of_q, {panels.begin + panel.begin, panels.begin + panel.end},
              {tokens.begin + token.begin, tokens.begin + token.end});
  });
}

void product(Parallel& parallel, const Product& args) {
  const std::int64_t panels = ceil_div(args.out_features, args.layout.panel_rows);
  const ManyTokensKernel* const many = args.layout.many_tokens;
  if (many != nullptr && args.x.tokens >= many->min_tokens && args.x.group == 0 &&
      args.group % many->group_step == 0) {
    return product_many_tokens(parallel, args);
  }
  if (args.group != 0) {
    return product_tiles(parallel, args, {0, panels}, {0, args.x.tokens});
  }
  const DonePart done =
      args.layout.product_part == nullptr ? DonePart{0, 0} : args.layout.product_part(parallel, args);
  product_tiles(parallel, args, {0, panels}, {done.tokens, args.x.tokens});
  product_tiles(parallel, args, {done.panels, panels}, {0, done.tokens});
}

}  // namespace trit::generic
