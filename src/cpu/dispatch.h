// SPDX-License-Identifier: MIT
//
// The rows of the kernel table, each defined in src/cpu/<isa>/kernels.cpp. Which of them exist is the build's
// choice (src/cpu/CMakeLists.txt); cpu_kernels() lists those.
#pragma once

#include "trit/kernels.h"

namespace trit {

extern const CpuKernels k_scalar;
extern const CpuKernels k_avx2;
extern const CpuKernels k_avx_vnni;
extern const CpuKernels k_avx512_vnni;
extern const CpuKernels k_amx;

}  // namespace trit
