// SPDX-License-Identifier: MIT
//
// Float layers: the interface that a library fills (dense_onednn.cpp, dense_builtin.cpp). Their sums are fp32
// in an order of the library's choice, so results agree across libraries and machines to rounding, not to the
// bit. On request, convolutions on a CPU with AMX take 16 bits of each factor (bf16_pairs.h).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "runtime/schedule.h"
#include "trit/backend.h"
#include "trit/parallel.h"

namespace trit::runtime {

/// A segment made ready for one batch size. Many threads may run it at once.
class CompiledSegment {
 public:
  virtual ~CompiledSegment() = default;
  /// Bytes of working memory of one run.
  virtual std::size_t arena_bytes() const = 0;
  /// inputs[i] and outputs[i]: the values of DenseSegment::inputs and outputs, row-major, batch outermost.
  /// `arena` is aligned to 64 bytes.
  virtual void run(std::span<const float* const> inputs, std::span<float* const> outputs,
                   std::byte* arena) const = 0;
};

/// The weights of a network's float layers, and how to run them.
class DenseLibrary {
 public:
  virtual ~DenseLibrary() = default;
  /// "oneDNN 3.2.0", "oneDNN 3.2.0 with bf16 pairs" or "built-in".
  virtual std::string name() const = 0;
  /// Not thread-safe: one compile at a time.
  virtual std::unique_ptr<CompiledSegment> compile(const DenseSegment& segment, std::int64_t batch) = 0;
};

/// oneDNN where this library was built with it, else the built-in loops; the environment variable TRIT_DENSE
/// ("onednn"; "onednn-bf16-pairs": oneDNN with bf16 pairs where the CPU has AMX; "builtin") chooses. Takes
/// the float layers' weights out of `network`; `network` and `parallel` must outlive the result. 3x3
/// convolutions run by Winograd's algorithm in each of them where that pays (winograd/layer.h), with the
/// instructions of `backend`. Throws Error for a TRIT_DENSE that this build lacks.
std::unique_ptr<DenseLibrary> make_dense_library(Network& network, Parallel& parallel, Backend backend);

std::unique_ptr<DenseLibrary> make_builtin_library(Network& network, Parallel& parallel, Backend backend);
#ifdef TRIT_HAVE_ONEDNN
std::unique_ptr<DenseLibrary> make_onednn_library(Network& network, Parallel& parallel, Backend backend,
                                                  bool bf16_pairs);
#endif

}  // namespace trit::runtime
