// SPDX-License-Identifier: MIT
//
// What the product tiles of this folder share: the multiplying step and the loop over k.
//
// The loops live in registers alone. gcc 12 spills accumulators of such loops when they are written with
// intrinsics, so what touches accumulators is an asm block; scripts/check_spills.py looks at the result.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/avx512_vnni/lanes.h"
#include "cpu/table.h"

namespace trit::avx512_vnni {
namespace {

constexpr std::int64_t kLineBytes = 64;

/// Where a prefetch brings a line.
enum class PrefetchTo { l1, l2 };

/// Loads a line and prefetches another one. Into L2: into L1 costs 2-bit panels up to 8 % of their speed from
/// memory on Sapphire Rapids and gives base-3 ones up to 4 %; for Zen see kOneTokenPrefetchOnAmd. A prefetch past the
/// last panel is harmless. One asm block, since compilers move prefetches to the front of an unrolled loop,
/// where four in a row cost a quarter of the bandwidth.
template <PrefetchTo kTo = PrefetchTo::l2>
[[gnu::always_inline]] inline __m512i load_line(const std::uint8_t* line, const std::uint8_t* prefetched) {
  struct [[gnu::may_alias]] Line {
    std::uint8_t bytes[kLineBytes];
  };
  __m512i codes;
  if constexpr (kTo == PrefetchTo::l1) {
    asm("vmovdqu64 %[line], %[codes]\n\t"
        "prefetcht0 %[prefetched]"
        : [codes] "=v"(codes)
        : [line] "m"(*reinterpret_cast<const Line*>(line)), [prefetched] "m"(*prefetched));
  } else {
    asm("vmovdqu64 %[line], %[codes]\n\t"
        "prefetcht1 %[prefetched]"
        : [codes] "=v"(codes)
        : [line] "m"(*reinterpret_cast<const Line*>(line)), [prefetched] "m"(*prefetched));
  }
  return codes;
}

/// Three of the four 2-bit fields of a byte, broadcast to all lanes by the AND itself: one more load, but no
/// register.
constexpr std::uint32_t kFieldMasks[3] = {0x03030303, 0x0c0c0c0c, 0x30303030};

/// Four bytes of q as an asm memory operand, whatever their declared type.
struct [[gnu::may_alias, gnu::packed]] FourInputs {
  std::int32_t bits;
};

/// How a tile ends: with one sum over all of k, as int32.
struct OneSum {
  /// Where the sums that begin at `at` end.
  [[gnu::always_inline]] static std::int64_t end(const ProductTile& args, std::int64_t /*at*/) {
    return args.k;
  }
  template <typename Kernel>
  [[gnu::always_inline]] static void begin(typename Kernel::Sums& /*sums*/, std::size_t /*token*/) {}
  template <typename Kernel, typename... Sums>
  [[gnu::always_inline]] static void finish(const ProductTile& args, const Sums&... sums) {
    std::size_t token = 0;
    ((Kernel::finish(sums, args.q_sum[token], args.acc + Kernel::kPanelRows * token), ++token), ...);
  }
  static constexpr bool kOnce = true;
};

/// The tile of kTokens tokens, kSteps lines at a time into sums of their own: vpdpbusd has a latency of 4 to
/// 5 cycles, and kTokens * kSteps * (registers of Sums) chains hide it, and no more steps than that needs.
///
/// `decode(line, prefetched)` gives a Fields and prefetches from `prefetched`, `multiply(sums,
/// fields, q)` adds one token's products to a Sums, `add` joins two Sums, `finish(sums, q_sum, acc)`
/// writes kPanelRows int32. Indices are unrolled by packs, not loops, so that the sums are registers
/// from the first pass of either compiler on. `ending` is OneSum, or a sum for each group of k.
template <typename Kernel, std::size_t kSteps, typename Ending, std::size_t... kToken>
[[gnu::always_inline]] inline void tile(const ProductTile& args, Ending ending,
                                        std::index_sequence<kToken...> /*tokens*/) {
  constexpr std::size_t kTokens = sizeof...(kToken);
  const Kernel kernel;
  const std::uint8_t* line = args.panel;
  const std::uint8_t* prefetched = args.panel + args.prefetch_distance;
  const std::int64_t prefetch_step = kLineBytes / args.prefetch_parts;
  const std::int8_t* const q[kTokens] = {args.q + static_cast<std::int64_t>(kToken) * args.q_stride...};
  std::int64_t at = 0;
  do {
    const std::int64_t end = ending.end(args, at);
    typename Kernel::Sums acc[kSteps * kTokens] = {};
    (ending.template begin<Kernel>(acc[kToken], kToken), ...);
    const auto step = [&]<std::size_t kStep>(Constant<kStep>) __attribute__((always_inline)) {
      const auto fields = kernel.decode(line + kLineBytes * kStep, prefetched);
      prefetched += prefetch_step;
      (Kernel::multiply(acc[kStep * kTokens + kToken], fields, q[kToken] + at + 4 * kStep), ...);
    };
    const auto steps = [&]<std::size_t... kStep>(std::index_sequence<kStep...>)
        __attribute__((always_inline)) {
      (step(Constant<kStep>{}), ...);
      line += kLineBytes * sizeof...(kStep);
      at += 4 * static_cast<std::int64_t>(sizeof...(kStep));
    };
    // steps() moves `at`: NOLINTBEGIN(bugprone-infinite-loop)
    if constexpr (kSteps == 1) {
      do {  // there is a line
        steps(std::make_index_sequence<1>{});
      } while (at < end);
    } else {
      while (at + 4 * static_cast<std::int64_t>(kSteps) <= end) {
        steps(std::make_index_sequence<kSteps>{});
      }
      while (at < end) {
        steps(std::make_index_sequence<1>{});
      }
      // NOLINTEND(bugprone-infinite-loop)
      const auto fold = [&]<std::size_t... kOther>(std::index_sequence<kOther...>)
          __attribute__((always_inline)) {
        (Kernel::add(acc[kOther % kTokens], acc[kOther + kTokens]), ...);
      };
      fold(std::make_index_sequence<(kSteps - 1) * kTokens>{});
    }
    ending.template finish<Kernel>(args, acc[kToken]...);
  } while (!Ending::kOnce && at < args.k);
}

}  // namespace
}  // namespace trit::avx512_vnni
