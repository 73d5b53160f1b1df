// SPDX-License-Identifier: MIT
#include "common/limits.h"

namespace trit::apps {

#if defined(__x86_64__)
namespace {

constexpr std::int64_t kLoops = 1 << 14;
constexpr int kChains = 12;  // a latency of 4 to 5 cycles at up to 2 instructions a cycle

// Asm, so that the file needs no instruction set flags and no compiler can shorten it.
void vnni_burst() {
  std::int64_t loops = kLoops;
  asm volatile(
      "vpternlogd $0xff, %%zmm12, %%zmm12, %%zmm12\n\t"
      "1:\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm0\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm1\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm2\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm3\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm4\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm5\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm6\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm7\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm8\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm9\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm10\n\t"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm11\n\t"
      "dec %0\n\t"
      "jnz 1b\n\t"
      "vzeroupper"
      : "+r"(loops)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
        "xmm11", "xmm12");
}

void avx2_burst() {
  std::int64_t loops = kLoops;
  asm volatile(
      "vpcmpeqd %%ymm12, %%ymm12, %%ymm12\n\t"
      "1:\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm0\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm1\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm2\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm3\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm4\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm5\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm6\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm7\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm8\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm9\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm10\n\t"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm11\n\t"
      "dec %0\n\t"
      "jnz 1b\n\t"
      "vzeroupper"
      : "+r"(loops)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
        "xmm11", "xmm12");
}

constexpr double operations(int bytes) { return 2.0 * kLoops * kChains * bytes; }

}  // namespace

std::optional<Int8Peak> int8_peak(Backend backend) {
  switch (backend) {
    case Backend::avx512_vnni:
      return Int8Peak{"vpdpbusd zmm", operations(64), vnni_burst};
    case Backend::avx2:
      return Int8Peak{"vpmaddubsw ymm", operations(32), avx2_burst};
    default:
      return std::nullopt;
  }
}
#else
std::optional<Int8Peak> int8_peak(Backend /*backend*/) { return std::nullopt; }
#endif

}  // namespace trit::apps
