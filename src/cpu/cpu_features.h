// SPDX-License-Identifier: MIT
//
// What this CPU has and its operating system has enabled: a system that does not save the wide registers
// makes them unusable, whatever CPUID says. Compiled without instruction set flags, so that asking is safe
// everywhere: the rows of the kernel table point here.
#pragma once

#include <cstdint>
#include <string>

namespace trit {

/// AVX2, FMA and F16C: Intel since Haswell (2013), AMD since Zen 1 (2017).
bool has_avx2();
/// AVX-VNNI, the dot product in 256-bit registers, besides has_avx2(): Intel since Alder Lake (2021), AMD
/// since Zen 5 (2024).
bool has_avx_vnni();
/// AVX-512 F, BW, DQ, VL and VNNI, besides has_avx2(): Intel since Cascade Lake (2019), AMD since Zen 4
/// (2022).
bool has_avx512_vnni();
/// And VBMI: Intel since Ice Lake (2019), AMD since Zen 4.
bool has_avx512_vbmi();
/// AMX tiles with int8 products, and GFNI, besides has_avx512_vnni(): Intel's server cores since Sapphire
/// Rapids (2023). Linux gives a process the 8 KiB of tile state on request; the first call asks.
bool has_amx();
/// And their bf16 products.
bool has_amx_bf16();

enum class CpuVendor : std::uint8_t { intel, amd, other };
/// The vendor of this processor. Hygon's cores are AMD's.
CpuVendor cpu_vendor();

/// The processor's name, family, model and stepping; "unknown" where it does not tell.
std::string cpu_model();

}  // namespace trit
