// SPDX-License-Identifier: MIT
#include "bench/lib/limits.h"

namespace trit::bench {

#if defined(__x86_64__)
namespace {

constexpr std::int64_t kLoops = 1 << 14;
constexpr int kChains = 12;  // a latency of 4 to 5 cycles at up to 2 instructions a cycle

// Assembly: the file needs no instruction set flags, and no compiler can shorten the loop.
#define TRIT_STEP(op, r, i) op " %%" r "12, %%" r "12, %%" r #i "\n\t"
/// A loop of kChains independent `op` on registers "zmm" or "ymm"; `set` fills register 12 with ones.
#define TRIT_BURST(set, op, r)                                                                          \
  std::int64_t loops = kLoops;                                                                          \
  asm volatile(set "\n\t1:\n\t" TRIT_STEP(op, r, 0) TRIT_STEP(op, r, 1) TRIT_STEP(op, r, 2)             \
                   TRIT_STEP(op, r, 3) TRIT_STEP(op, r, 4) TRIT_STEP(op, r, 5) TRIT_STEP(op, r, 6)      \
                       TRIT_STEP(op, r, 7) TRIT_STEP(op, r, 8) TRIT_STEP(op, r, 9) TRIT_STEP(op, r, 10) \
                           TRIT_STEP(op, r, 11) "dec %0\n\tjnz 1b\n\tvzeroupper"                        \
               : "+r"(loops)                                                                            \
               :                                                                                        \
               : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",  \
                 "xmm10", "xmm11", "xmm12")

void vnni_burst() { TRIT_BURST("vpternlogd $0xff, %%zmm12, %%zmm12, %%zmm12", "vpdpbusd", "zmm"); }
void avx_vnni_burst() { TRIT_BURST("vpcmpeqd %%ymm12, %%ymm12, %%ymm12", "%{vex%} vpdpbusd", "ymm"); }
void avx2_burst() { TRIT_BURST("vpcmpeqd %%ymm12, %%ymm12, %%ymm12", "vpmaddubsw", "ymm"); }

// 16 x 64 times 64 x 16 bytes into four accumulators. Latency 52 cycles, one instruction every 16.
constexpr std::int64_t kTileLoops = 1 << 10;

void amx_burst() {
  struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  };
  static constexpr Configuration kTiles;
  // Not zeros, with which the multipliers take less power and the clock may be higher.
  struct Tile {
    alignas(64) std::uint8_t bytes[1024];
    Tile() {
      for (std::uint32_t i = 0; i < sizeof bytes; ++i) {
        bytes[i] = static_cast<std::uint8_t>((i * 2654435761U) >> 24);
      }
    }
  };
  static const Tile tile;
  std::int64_t loops = kTileLoops;
  asm volatile(
      "ldtilecfg %1\n\t"
      "tilezero %%tmm0\n\t"
      "tilezero %%tmm1\n\t"
      "tilezero %%tmm2\n\t"
      "tilezero %%tmm3\n\t"
      "tileloadd (%2,%3,1), %%tmm4\n\t"
      "tileloadd (%2,%3,1), %%tmm5\n\t"
      "1:\n\t"
      "tdpbssd %%tmm5, %%tmm4, %%tmm0\n\t"
      "tdpbssd %%tmm5, %%tmm4, %%tmm1\n\t"
      "tdpbssd %%tmm5, %%tmm4, %%tmm2\n\t"
      "tdpbssd %%tmm5, %%tmm4, %%tmm3\n\t"
      "dec %0\n\t"
      "jnz 1b\n\t"
      "tilerelease"
      : "+r"(loops)
      : "m"(kTiles), "r"(tile.bytes), "r"(std::int64_t{64}), "m"(tile)
      : "cc");
}

constexpr double operations(int bytes) { return 2.0 * kLoops * kChains * bytes; }
constexpr double kTileOperations = 2.0 * 16 * 64 * 16 * 4 * kTileLoops;

}  // namespace

std::optional<Int8Peak> int8_peak(Backend backend) {
  switch (backend) {
    case Backend::amx:
      return Int8Peak{"tdpbssd", kTileOperations, amx_burst};
    case Backend::avx512_vnni:
      return Int8Peak{"vpdpbusd zmm", operations(64), vnni_burst};
    case Backend::avx_vnni:
      return Int8Peak{"vpdpbusd ymm", operations(32), avx_vnni_burst};
    case Backend::avx2:
      return Int8Peak{"vpmaddubsw ymm", operations(32), avx2_burst};
    default:
      return std::nullopt;
  }
}
#else
std::optional<Int8Peak> int8_peak(Backend /*backend*/) { return std::nullopt; }
#endif

}  // namespace trit::bench
