// SPDX-License-Identifier: MIT
//
// acc[token][row] = sum over k of q * t, AVX-VNNI: AVX2's panels (lines of 32 rows x 4 inputs), AVX-512
// VNNI's arithmetic. Field j of a line, in place as code * 4^j, is the unsigned operand of vpdpbusd against
// four q of a token, broadcast; at the end the sums are shifted right by 2j, which is exact, and the sum of q
// takes the 1 out of the codes t + 1.
//
// Sixteen registers are what makes the tiles. vpdpbusd has a latency of 5 cycles and two start in a cycle:
// ten sums keep it busy. One or two tokens: all 4 fields of 2 lines, or of 1, at once, 8 sums. 3 tokens and
// more: 2 fields at a time in two passes over the same lines, the second from L1 or L2; then 12 sums, 2
// fields and 4 bytes of q are 15 registers. The masks are memory operands of the ANDs.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/avx2/avx2.h"
#include "cpu/avx2/group_sums.h"
#include "cpu/avx_vnni/avx_vnni.h"

namespace trit::avx_vnni {
namespace {

using avx2::kFields;
using avx2::kLineBytes;
using avx2::kPanelRows;

/// A 32-byte mask of each field.
alignas(32) constexpr std::uint64_t kMasks[kFields][4] = {
    {0x0303030303030303, 0x0303030303030303, 0x0303030303030303, 0x0303030303030303},
    {0x0c0c0c0c0c0c0c0c, 0x0c0c0c0c0c0c0c0c, 0x0c0c0c0c0c0c0c0c, 0x0c0c0c0c0c0c0c0c},
    {0x3030303030303030, 0x3030303030303030, 0x3030303030303030, 0x3030303030303030},
    {0xc0c0c0c0c0c0c0c0, 0xc0c0c0c0c0c0c0c0, 0xc0c0c0c0c0c0c0c0, 0xc0c0c0c0c0c0c0c0}};

/// Four bytes of q as an asm memory operand, whatever their declared type.
struct [[gnu::may_alias, gnu::packed]] FourInputs {
  std::int32_t bits;
};

template <std::size_t kValue>
using Constant = std::integral_constant<std::size_t, kValue>;

[[gnu::always_inline]] inline __m256i broadcast4(const std::int8_t* q) {
  __m256i inputs;
  asm("vpbroadcastd %1, %0" : "=x"(inputs) : "m"(*reinterpret_cast<const FourInputs*>(q)));
  return inputs;
}

/// acc += codes . inputs. Not the intrinsic: gcc 12 moves accumulators to the stack around it.
[[gnu::always_inline]] inline void multiply(__m256i& acc, __m256i codes, __m256i inputs) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(inputs));
}

/// Field kField of a line, in place; of kCount fields the last, where that is all of them, the line itself:
/// what the other three sums hold is taken out of its sum at the end.
template <std::size_t kField, std::size_t kCount>
[[gnu::always_inline]] inline __m256i field(__m256i line) {
  if constexpr (kCount == kFields && kField == kFields - 1) {
    return line;
  }
  __m256i codes;
  asm("vpand %2, %1, %0" : "=x"(codes) : "x"(line), "m"(*reinterpret_cast<const __m256i*>(kMasks[kField])));
  return codes;
}

/// The sums of all of k, as int32.
struct OneSum {
  const ProductTile& tile;

  [[gnu::always_inline]] std::int64_t inputs() const { return tile.k; }
  [[gnu::always_inline]] void next() const {}
  [[gnu::always_inline]] __m256i q_sum(std::size_t token) const {
    return _mm256_set1_epi32(tile.q_sum[token]);
  }
  [[gnu::always_inline]] void add(std::size_t token, std::size_t field, __m256i sum) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile.acc + token * kPanelRows + 8 * field), sum);
  }
};

/// A sum for each group.
template <typename Sums>
struct SumOfGroups : Sums {
  std::int64_t group;

  SumOfGroups(const Sums& sums, std::int64_t inputs_of_group) : Sums(sums), group(inputs_of_group) {}
  [[gnu::always_inline]] std::int64_t inputs() const { return group; }
};

/// kTokens tokens x the fields kFirst .. kFirst + kCount - 1, kSteps lines at a time into sums of their own.
///
/// Indices are unrolled by packs, not loops, so that the sums are registers from the first pass of either
/// compiler on. `ending` takes the sums of each ending.inputs(), one token and field at a time: add(token,
/// field, sums of eight rows), from which q_sum(token) has been taken out; next() comes after them.
template <std::size_t kSteps, std::size_t kFirst, typename Ending, std::size_t... kField,
          std::size_t... kToken>
[[gnu::always_inline]] inline void tile(const ProductTile& args, Ending ending,
                                        std::index_sequence<kField...> /*fields*/,
                                        std::index_sequence<kToken...> /*tokens*/) {
  constexpr std::size_t kCount = sizeof...(kField);
  constexpr std::size_t kTokens = sizeof...(kToken);
  constexpr std::size_t kSums = kCount * kTokens;
  const std::uint8_t* line = args.panel;
  [[maybe_unused]] auto prefetched = reinterpret_cast<const char*>(args.panel + args.prefetch_distance);
  [[maybe_unused]] const std::int64_t prefetch_step = kLineBytes / args.prefetch_parts;
  const std::int8_t* const q[] = {args.q + static_cast<std::int64_t>(kToken) * args.q_stride...};
  std::int64_t at = 0;
  while (at < args.k) {
    const std::int64_t inputs = ending.inputs();
    const std::int64_t end = args.k - at < inputs ? args.k : at + inputs;
    __m256i acc[kSteps * kSums] = {};
    const auto step = [&]<std::size_t kStep>(Constant<kStep>) __attribute__((always_inline)) {
      if constexpr (kFirst == 0) {
        _mm_prefetch(prefetched, kTokens == 1 ? _MM_HINT_T0 : _MM_HINT_T1);
        prefetched += prefetch_step;
      }
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + kStep * kLineBytes));
      const __m256i fields[kCount] = {field<kFirst + kField, kCount>(codes)...};
      const auto token = [&]<std::size_t kIndex>(Constant<kIndex>) __attribute__((always_inline)) {
        const __m256i inputs4 = broadcast4(q[kIndex] + at + 4 * static_cast<std::int64_t>(kStep));
        (multiply(acc[kStep * kSums + kIndex * kCount + kField], fields[kField], inputs4), ...);
      };
      (token(Constant<kToken>{}), ...);
    };
    const auto steps = [&]<std::size_t... kStep>(std::index_sequence<kStep...>)
        __attribute__((always_inline)) {
      (step(Constant<kStep>{}), ...);
      line += kLineBytes * static_cast<std::int64_t>(sizeof...(kStep));
      at += 4 * static_cast<std::int64_t>(sizeof...(kStep));
    };
    // steps() moves `at`: NOLINTBEGIN(bugprone-infinite-loop)
    while (at + 4 * static_cast<std::int64_t>(kSteps) <= end) {
      steps(std::make_index_sequence<kSteps>{});
    }
    if constexpr (kSteps > 1) {
      while (at < end) {
        steps(std::make_index_sequence<1>{});
      }
      // NOLINTEND(bugprone-infinite-loop)
      const auto fold = [&]<std::size_t... kOther>(std::index_sequence<kOther...>)
          __attribute__((always_inline)) {
        ((acc[kOther % kSums] = _mm256_add_epi32(acc[kOther % kSums], acc[kOther + kSums])), ...);
      };
      fold(std::make_index_sequence<(kSteps - 1) * kSums>{});
    }
    if constexpr (kCount == kFields) {
      const auto take_out = [&](__m256i & all, __m256i s0, __m256i s1, __m256i s2)
          __attribute__((always_inline)) {
        all = _mm256_sub_epi32(all, _mm256_add_epi32(s0, _mm256_add_epi32(s1, s2)));
      };
      (take_out(acc[kToken * kCount + 3], acc[kToken * kCount], acc[kToken * kCount + 1],
                acc[kToken * kCount + 2]),
       ...);
    }
    const auto finish = [&]<std::size_t kIndex>(Constant<kIndex>) __attribute__((always_inline)) {
      const __m256i sum = ending.q_sum(kIndex);
      (ending.add(
           kIndex, kFirst + kField,
           _mm256_sub_epi32(
               _mm256_srai_epi32(acc[kIndex * kCount + kField], 2 * static_cast<int>(kFirst + kField)), sum)),
       ...);
    };
    (finish(Constant<kToken>{}), ...);
    ending.next();
  }
}

/// All fields at once.
template <std::size_t kTokens, std::size_t kSteps, typename Ending>
void at_once(const ProductTile& args, const Ending& ending) {
  tile<kSteps, 0>(args, ending, std::make_index_sequence<kFields>{}, std::make_index_sequence<kTokens>{});
}

/// Two fields, then the other two.
template <std::size_t kTokens, std::size_t kSteps, typename Ending>
void in_two_passes(const ProductTile& args, const Ending& ending) {
  tile<kSteps, 0>(args, ending, std::make_index_sequence<2>{}, std::make_index_sequence<kTokens>{});
  tile<kSteps, 2>(args, ending, std::make_index_sequence<2>{}, std::make_index_sequence<kTokens>{});
}

template <typename Ending>
void run_tokens(const ProductTile& tile, const Ending& ending) {
  switch (tile.tokens) {
    case 1:
      return at_once<1, 2>(tile, ending);
    case 2:
      return at_once<2, 1>(tile, ending);
    case 3:
      return in_two_passes<3, 2>(tile, ending);
    case 4:
      return in_two_passes<4, 1>(tile, ending);
    case 5:
      return in_two_passes<5, 1>(tile, ending);
    default:
      return in_two_passes<6, 1>(tile, ending);
  }
}

}  // namespace

void product_tile(const ProductTile& tile) { run_tokens(tile, OneSum{tile}); }

void group_tile(const GroupTile& args) {
  avx2::with_group_sums(
      args, [&](const auto& sums)
                __attribute__((always_inline)) { run_tokens(args.tile, SumOfGroups(sums, args.group)); });
}

}  // namespace trit::avx_vnni
