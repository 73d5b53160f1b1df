// SPDX-License-Identifier: MIT
//
// The product tile of 2-bit panels and the epilogue, AVX-512 VNNI (docs/design/cpu-avx512-vnni.md).
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/epilogue.h"
#include "cpu/avx512_vnni/lanes.h"
#include "cpu/avx512_vnni/tile.h"
#include "cpu/avx512_vnni/two_bit.h"
#include "cpu/cpu_features.h"

namespace trit::avx512_vnni {
void product_tile_on(CpuVendor vendor, const ProductTile& args) {
  using InRegisters = TwoBit<MasksInRegisters<>>;
  using OneTokenOnAmd = TwoBit<MasksInRegisters<kOneTokenPrefetchOnAmd>>;
  switch (args.tokens) {
    case 1:
      return vendor == CpuVendor::amd ? tile<OneTokenOnAmd, 4>(args, OneSum{}, std::make_index_sequence<1>{})
                                      : tile<InRegisters, 4>(args, OneSum{}, std::make_index_sequence<1>{});
    case 2:
      return tile<InRegisters, 1>(args, OneSum{}, std::make_index_sequence<2>{});
    case 3:
      return tile<InRegisters, 1>(args, OneSum{}, std::make_index_sequence<3>{});
    case 4:
      return tile<InRegisters, 1>(args, OneSum{}, std::make_index_sequence<4>{});
    case 5:
      return tile<InRegisters, 1>(args, OneSum{}, std::make_index_sequence<5>{});
    default:
      return tile<TwoBit<MasksInMemory>, 1>(args, OneSum{}, std::make_index_sequence<6>{});
  }
}

void product_tile(const ProductTile& args) { product_tile_on(cpu_vendor(), args); }

void group_row(const GroupRow& args, std::int64_t panel_rows) {
  const __m512 token_scale = _mm512_set1_ps(args.token_scale);
  for (std::int64_t at = 0; at < panel_rows; at += 16) {
    const __m512 beta = args.weight_scale.type == DataType::float16
                            ? load_scales<std::uint16_t>(args.weight_scale.values, at)
                            : load_scales<float>(args.weight_scale.values, at);
    _mm512_storeu_ps(args.sums + at,
                     _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(args.acc + at)),
                                     _mm512_mul_ps(beta, token_scale), _mm512_loadu_ps(args.sums + at)));
  }
}

void epilogue_row(const EpilogueRow& args) {
  std::int64_t at = 0;
  if (args.y_type == DataType::float32 && !args.non_temporal) {
    at = args.rows / 16 * 16;
    epilogue_whole(args, at);
  }
  for (; at < args.rows; at += 16) {
    epilogue_16(args, at);
  }
}

}  // namespace trit::avx512_vnni
