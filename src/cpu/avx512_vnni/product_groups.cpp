// SPDX-License-Identifier: MIT
//
// The product tile of 2-bit panels with group scales, AVX-512 VNNI (docs/design/cpu-groups.md).
//
// The loop over lines is product.cpp's. A group's sums begin at minus the sum of its q, by broadcasts from
// memory, so that nothing need be subtracted at its end. There the field that is 4^j times too large is
// multiplied by w / 4^j, which is exact, instead of being shifted: once per row and group, where a shift
// would be needed for each token as well. A group of 128 inputs and 6 tokens: 768 vpdpbusd, 96 ANDs, and 73
// instructions on the same two ports for all that the groups need.
#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/epilogue.h"
#include "cpu/avx512_vnni/tile.h"
#include "cpu/avx512_vnni/two_bit.h"
#include "cpu/cpu_features.h"

namespace trit::avx512_vnni {
namespace {

constexpr std::int64_t kPanelRows = 64;

/// A sum for each group, scaled and added to sums in L1. Scales are stored as Stored.
template <typename Stored, bool kTokenScales>
class SumOfGroups {
 public:
  static constexpr bool kOnce = false;

  explicit SumOfGroups(const GroupTile& args)
      : group_(args.group),
        offsets_(args.offsets),
        offsets_stride_(args.offsets_stride),
        scales_(static_cast<const Stored*>(args.weight_scale.values)),
        scale_prefetch_distance_(args.scale_prefetch_distance),
        token_scale_(args.token_scale),
        token_scale_stride_(args.token_scale_stride),
        sums_(args.sums) {}

  [[gnu::always_inline]] std::int64_t end(const ProductTile& args, std::int64_t at) const {
    return std::min(at + group_, args.k);
  }
  template <typename Kernel>
  [[gnu::always_inline]] void begin(typename Kernel::Sums& sums, std::size_t token) const {
    Kernel::begin(sums, offsets_ + static_cast<std::int64_t>(token) * offsets_stride_);
  }
  template <typename Kernel, typename... Sums>
  [[gnu::always_inline]] void finish(const ProductTile& /*args*/, Sums&... sums) {
    prefetch();
    const __m512 scales[4] = {field_scales<0>(), field_scales<1>(), field_scales<2>(), field_scales<3>()};
    add_tokens<Kernel>(std::index_sequence_for<Sums...>{}, scales, sums...);
    offsets_ += Kernel::kOffsets;
    scales_ += kPanelRows;
    if constexpr (kTokenScales) {
      ++token_scale_;
    }
  }

 private:
  template <typename Kernel, std::size_t... kToken, typename... Sums>
  [[gnu::always_inline]] void add_tokens(std::index_sequence<kToken...> /*tokens*/, const __m512 (&scales)[4],
                                         Sums&... sums) const {
    constexpr std::size_t kBytes = kPanelRows * sizeof(float);
    (Kernel::template add_group<kTokenScales, kToken * kBytes>(sums, scales, token_scale<kToken>(), sums_),
     ...);
  }
  /// Null without token scales.
  template <std::size_t kToken>
  [[gnu::always_inline]] const float* token_scale() const {
    if constexpr (kTokenScales) {
      return token_scale_ + static_cast<std::int64_t>(kToken) * token_scale_stride_;
    } else {
      return nullptr;
    }
  }
  [[gnu::always_inline]] void prefetch() const {
    const char* const from = reinterpret_cast<const char*>(scales_) + scale_prefetch_distance_;
    for (std::size_t at = 0; at < kPanelRows * sizeof(Stored); at += 64) {
      _mm_prefetch(from + at, _MM_HINT_T1);
    }
  }
  /// Those of the rows of field kField, over 4^kField.
  template <int kField>
  [[gnu::always_inline]] __m512 field_scales() const {
    static constexpr float kFactors[4] = {1, 1.0F / 4, 1.0F / 16, 1.0F / 64};
    __m512 scales = load_scales<Stored>(scales_, 16 * kField);
    if constexpr (kField > 0) {
      // With the factor from memory: it has no register.
      asm("vmulps %[factor]%{1to16%}, %[scales], %[scales]"
          : [scales] "+v"(scales)
          : [factor] "m"(kFactors[kField]));
    }
    return scales;
  }

  std::int64_t group_;
  const std::int32_t* offsets_;
  std::int64_t offsets_stride_;
  const Stored* scales_;
  std::int64_t scale_prefetch_distance_;
  const float* token_scale_;
  std::int64_t token_scale_stride_;
  float* sums_;
};

template <typename Ending>
void tile_with(CpuVendor vendor, const GroupTile& args) {
  using InRegisters = TwoBit<MasksInRegisters<>>;
  using OneTokenOnAmd = TwoBit<MasksInRegisters<kOneTokenPrefetchOnAmd>>;
  const Ending ending(args);
  switch (args.tile.tokens) {
    case 1:
      return vendor == CpuVendor::amd
                 ? tile<OneTokenOnAmd, 4>(args.tile, ending, std::make_index_sequence<1>{})
                 : tile<InRegisters, 2>(args.tile, ending, std::make_index_sequence<1>{});
    case 2:
      return tile<InRegisters, 1>(args.tile, ending, std::make_index_sequence<2>{});
    case 3:
      return tile<InRegisters, 1>(args.tile, ending, std::make_index_sequence<3>{});
    case 4:
      return tile<InRegisters, 1>(args.tile, ending, std::make_index_sequence<4>{});
    case 5:
      return tile<InRegisters, 1>(args.tile, ending, std::make_index_sequence<5>{});
    default:
      return tile<TwoBit<MasksInMemory>, 1>(args.tile, ending, std::make_index_sequence<6>{});
  }
}

void group_tile(const GroupTile& args) { group_tile_on(cpu_vendor(), args); }

/// Minus the sum of a group's q, times 1, 4, 16 and their sum with 64.
void group_offsets(const std::int8_t* q, std::int64_t k, std::int64_t group, std::int32_t* offsets) {
  const __m512i ones = _mm512_set1_epi8(1);
  const __m128i multiples = _mm_setr_epi32(-1, -4, -16, -85);
  for (std::int64_t first = 0; first < k; first += group) {
    const std::int64_t end = std::min(first + group, k);
    __m512i sum = _mm512_setzero_si512();
    for (std::int64_t at = first; at < end; at += 64) {
      const __mmask64 inputs = end - at >= 64 ? ~__mmask64{0} : (__mmask64{1} << (end - at)) - 1;
      sum = _mm512_dpbusd_epi32(sum, ones, _mm512_maskz_loadu_epi8(inputs, q + at));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(offsets),
                     _mm_mullo_epi32(_mm_set1_epi32(_mm512_reduce_add_epi32(sum)), multiples));
    offsets += 4;
  }
}

}  // namespace

void group_tile_on(CpuVendor vendor, const GroupTile& args) {
  const bool token_scales = args.token_scale != nullptr;
  if (args.weight_scale.type == DataType::float16) {
    return token_scales ? tile_with<SumOfGroups<std::uint16_t, true>>(vendor, args)
                        : tile_with<SumOfGroups<std::uint16_t, false>>(vendor, args);
  }
  return token_scales ? tile_with<SumOfGroups<float, true>>(vendor, args)
                      : tile_with<SumOfGroups<float, false>>(vendor, args);
}

constinit const GroupKernel kGroupKernel = {
    .offset_count = 4,
    .offsets = group_offsets,
    .max_group = 131'072,  // field 3 holds 64 times a sum of at most 2^7 group
    .shifts_scales = true,
    .tile = group_tile,
};

}  // namespace trit::avx512_vnni
