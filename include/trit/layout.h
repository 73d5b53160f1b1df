// SPDX-License-Identifier: MIT
//
// Which panels a layer should have on this machine (docs/kernels.md, "Which panels").
#pragma once

#include <cstdint>
#include <string>

#include "trit/kernels.h"
#include "trit/parallel.h"

namespace trit {

struct LayoutChoice {
  PanelFormat format;  // never automatic
  std::string why;  // "the only one of this backend here", "TRIT_LAYOUT", "weights of 1 MB stay in L2", ...
};

/// The format for layers whose weights, `weight_bytes` at 2 bits each in all, are read one layer after the
/// other by the threads of `parallel`.
///
/// TRIT_LAYOUT (two_bit, base3; auto is the same as unset) decides where it is set. Else: the default of the
/// backend where the weights stay in L2; where they do not, the format that decodes fastest (one token),
/// measured with that many bytes in about a second and kept in $XDG_CACHE_HOME/trit or ~/.cache/trit, by
/// processor, backend, number of threads and size. No size of a last cache is asked for: a virtual machine's
/// may be another guest's. A cache that cannot be read or written is as good as none. Thread-safe. Throws
/// Error for an unknown name in TRIT_LAYOUT.
LayoutChoice choose_layout(const CpuKernels& kernels, Parallel& parallel, std::int64_t weight_bytes);

}  // namespace trit
