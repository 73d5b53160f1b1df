// SPDX-License-Identifier: MIT
//
// Where layers run, and in which form their weights are kept.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// Where a layer runs. `automatic` is the fastest that this machine has.
enum class Backend : std::uint8_t { automatic, scalar, avx2, avx_vnni, avx512_vnni, amx, cuda };

/// "auto", "scalar", "avx2", "avx_vnni", "avx512_vnni", "amx", "cuda".
std::string_view name_of(Backend backend);
/// The inverse; throws Error that lists the names.
Backend backend_from_name(std::string_view name);

/// How prepared weights are coded in memory. `automatic`: the default in PackedLinear, the fastest in Model.
enum class PanelFormat : std::uint8_t {
  automatic,
  two_bit,  ///< 2 bits a weight: cheap to unpack
  base3,    ///< 1.6 bits a weight, five to a byte: fewest bytes to read
};

/// "auto", "two_bit", "base3".
std::string_view name_of(PanelFormat format);
/// The inverse; throws Error that lists the names.
PanelFormat panel_format_from_name(std::string_view name);

/// The CPU kernels of one backend: chosen once, then handed to the functions of linear.h.
struct CpuKernels;

/// The kernels of `backend`; for `automatic` those that TRIT_BACKEND names, else the fastest available.
/// Throws Error, listing what this machine has, for a backend that is missing.
const CpuKernels& cpu_kernels_for(Backend backend);
/// The backend that `kernels` belong to, never `automatic`.
Backend backend_of(const CpuKernels& kernels);
/// The formats of prepared weights that `kernels` have on this machine; the first is the default.
std::vector<PanelFormat> available_formats(const CpuKernels& kernels);

/// `backend`, and for `automatic` the one that TRIT_BACKEND names, if it names one.
Backend requested_backend(Backend backend);
/// Names of the CPU backends that this machine can run, slowest first.
std::vector<std::string> available_backends();

}  // namespace trit

TRIT_EXPORT_END
