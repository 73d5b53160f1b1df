// SPDX-License-Identifier: MIT
#include "cpu/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace trit {
namespace {

struct Features {
  bool avx2 = false;
  bool avx_vnni = false;
  bool avx512_vnni = false;
  bool avx512_vbmi = false;
  bool amx = false;
};

constexpr bool bit(std::uint32_t word, int index) { return ((word >> index) & 1U) != 0; }

std::uint32_t xcr0() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Linux (5.16 and later) lets a process use the tile registers only after it has asked, since they make every
// signal frame 8 KiB larger. Threads started before or after have the permission too.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Features detect() {
  Features features;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
  std::uint32_t d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) {
    return features;
  }
  const bool osxsave = bit(c, 27);
  const bool fma = bit(c, 12);
  const bool f16c = bit(c, 29);
  if (!osxsave || !bit(c, 28) || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) {
    return features;
  }
  const std::uint32_t enabled = xcr0();
  constexpr std::uint32_t kYmm = 0x6;   // XMM and YMM state
  constexpr std::uint32_t kZmm = 0xe6;  // and the mask and ZMM registers
  features.avx2 = (enabled & kYmm) == kYmm && bit(b, 5) && fma && f16c;
  const bool avx512 = bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);  // F, DQ, BW, VL
  features.avx512_vnni = features.avx2 && (enabled & kZmm) == kZmm && avx512 && bit(c, 11);
  features.avx512_vbmi = features.avx512_vnni && bit(c, 1);
  constexpr std::uint32_t kTiles = 0x60000;  // tile configuration and tile data
  const bool amx = (enabled & kTiles) == kTiles && bit(d, 24) && bit(d, 25) && bit(c, 8);  // tile, int8, GFNI
  features.amx = features.avx512_vnni && amx && may_use_tiles();
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
    features.avx_vnni = features.avx2 && bit(a, 4);
  }
  return features;
}

const Features& features() {
  static const Features found = detect();
  return found;
}

}  // namespace

bool has_avx2() { return features().avx2; }
bool has_avx_vnni() { return features().avx_vnni; }
bool has_avx512_vnni() { return features().avx512_vnni; }
bool has_avx512_vbmi() { return features().avx512_vbmi; }
bool has_amx() { return features().amx; }

CpuVendor cpu_vendor() {
  static const CpuVendor vendor = [] {
    std::uint32_t most = 0;
    std::array<std::uint32_t, 3> name{};
    __get_cpuid(0, &most, &name[0], &name[2], &name[1]);
    const std::string_view text(reinterpret_cast<const char*>(name.data()), sizeof(name));
    return text == "GenuineIntel"                             ? CpuVendor::intel
           : text == "AuthenticAMD" || text == "HygonGenuine" ? CpuVendor::amd
                                                              : CpuVendor::other;
  }();
  return vendor;
}

std::string cpu_model() {
  std::array<std::uint32_t, 12> name{};
  for (unsigned i = 0; i < 3; ++i) {
    if (__get_cpuid(0x80000002U + i, &name[4 * i], &name[4 * i + 1], &name[4 * i + 2], &name[4 * i + 3]) ==
        0) {
      return "unknown";
    }
  }
  std::uint32_t signature = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
  std::uint32_t d = 0;
  __get_cpuid(1, &signature, &b, &c, &d);
  std::string text(reinterpret_cast<const char*>(name.data()), sizeof(name));
  text.resize(std::min(text.find('\0'), text.size()));
  return text + " " + std::to_string(signature);
}

}  // namespace trit

#else

namespace trit {

bool has_avx2() { return false; }
bool has_avx_vnni() { return false; }
bool has_avx512_vnni() { return false; }
bool has_avx512_vbmi() { return false; }
std::string cpu_model() { return "unknown"; }
CpuVendor cpu_vendor() { return CpuVendor::other; }
bool has_amx() { return false; }

}  // namespace trit

#endif
