// SPDX-License-Identifier: MIT
//
// Which format of prepared weights is the fastest on this machine (docs/design/cpu.md).
#pragma once

#include <cstdint>
#include <string>

#include "trit/backend.h"
#include "trit/export.h"
#include "trit/parallel.h"

TRIT_EXPORT_BEGIN

namespace trit {

struct LayoutChoice {
  PanelFormat format;  // never automatic
  std::string why;  // "the only one of this backend here", "TRIT_LAYOUT", "weights of 1 MB stay in L2", ...
};

/// The format for a model whose layers are read one after the other by the threads of `parallel`;
/// `weight_bytes` are all of its weights at 2 bits each.
///
/// TRIT_LAYOUT (two_bit, base3; auto is the same as unset) decides if it is set. Otherwise weights that
/// stay in L2 get the default of the backend, and larger ones the format that decodes fastest (one token).
/// That is measured with as many bytes, in about a second, and kept in $XDG_CACHE_HOME/trit or
/// ~/.cache/trit by processor, backend, number of threads and size. The reported size of the last cache is
/// not used: in a virtual machine other guests may share it. A file that cannot be read or written is
/// ignored. Thread-safe. Throws Error for an unknown name in TRIT_LAYOUT.
LayoutChoice choose_layout(const CpuKernels& kernels, Parallel& parallel, std::int64_t weight_bytes);

}  // namespace trit

TRIT_EXPORT_END
