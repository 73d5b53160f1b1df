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
  bool amx_bf16 = false;
};

// Linux (5.16 and later) lets a process use the tile registers only after it has asked, since they
// make every signal frame 8 KiB larger. Threads started before or after have the permission too. A
// system that does not save tiles refuses.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

/// One bit of a CPUID leaf; registers are eax, ebx, ecx, edx. For features that __builtin_cpu_supports of
/// clang 14 does not know.
bool cpuid_bit(unsigned leaf, unsigned subleaf, std::size_t register_index, int bit) {
  std::array<unsigned, 4> registers{};
  return __get_cpuid_count(leaf, subleaf, &registers[0], &registers[1], &registers[2], &registers[3]) != 0 &&
         (registers.at(register_index) >> bit & 1U) != 0;
}

Features detect() {
  // The builtin also asks whether the operating system saves the wide registers.
  const bool f16c = cpuid_bit(1, 0, 2, 29);
  const bool avx_vnni = cpuid_bit(7, 1, 0, 4);
  const bool amx = cpuid_bit(7, 0, 3, 24) && cpuid_bit(7, 0, 3, 25);  // tile and int8
  Features features;
  features.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 && f16c;
  features.avx_vnni = features.avx2 && avx_vnni;
  features.avx512_vnni = features.avx2 && __builtin_cpu_supports("avx512f") != 0 &&
                         __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
  features.avx512_vbmi = features.avx512_vnni && __builtin_cpu_supports("avx512vbmi") != 0;
  features.amx = features.avx512_vnni && amx && __builtin_cpu_supports("gfni") != 0 && may_use_tiles();
  features.amx_bf16 = features.amx && cpuid_bit(7, 0, 3, 22);
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
bool has_amx_bf16() { return features().amx_bf16; }

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
