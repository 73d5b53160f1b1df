// SPDX-License-Identifier: MIT
//
// Float layers: the interface that a library fills (dense_onednn.cpp, dense_builtin.cpp). Their sums are fp32
// in an order of the library's choice, so results agree across libraries and machines to rounding, not to the
// bit. On request, convolutions on a CPU with AMX take 16 bits of each factor (bf16_pairs.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/table.h"
#include "runtime/builtin_kernels.h"
#include "runtime/program.h"
#include "trit/backend.h"
#include "trit/parallel.h"

namespace trit::runtime {

/// The weights of one layer, as its library reads them.
class DenseLayer {
 public:
  virtual ~DenseLayer() = default;
  /// Adds the layer, bias included, to a program for the input `x`. May do the step's ReLU, and takes it out
  /// of the step then. Not thread-safe: one program of a model is built at a time.
  virtual Value lower(ProgramBuilder& builder, Step& step, const Value& x) = 0;
};

class DenseLibrary {
 public:
  virtual ~DenseLibrary() = default;
  /// "oneDNN 3.2.0", "oneDNN 3.2.0 with bf16 pairs" or "built-in".
  virtual std::string name() const = 0;
  /// Whether it has a convolution of so many input channels that is faster than Winograd's algorithm.
  virtual bool beats_winograd(std::int64_t /*channels*/) const { return false; }
  /// Whether values may have an order other than row-major.
  virtual bool has_orders() const { return false; }

  /// weight [out_channels, channels, kernel_height, kernel_width], bias [out_channels] or empty. `size` says
  /// nothing of the batch.
  virtual std::unique_ptr<DenseLayer> convolution(const builtin::Image& size, std::vector<float> weight,
                                                  std::vector<float> bias) = 0;
  /// weight [out, in], bias [out] or empty; over the last dimension of a row-major value.
  virtual std::unique_ptr<DenseLayer> linear(std::int64_t in, std::int64_t out, std::vector<float> weight,
                                             std::vector<float> bias) = 0;
  /// Copies a value into another order; only where has_orders().
  virtual void reorder(ProgramBuilder& /*builder*/, const Value& /*from*/, const Value& /*to*/) {}
};

/// What float operators are prepared with.
struct CpuLibraries {
  DenseLibrary& dense;
  Backend backend;  // whose instructions Winograd's algorithm uses
};

/// oneDNN where this library was built with it, else the built-in loops; the environment variable TRIT_DENSE
/// ("onednn"; "onednn-bf16-pairs": oneDNN with bf16 pairs where the CPU has AMX; "builtin") chooses. Throws
/// Error for a TRIT_DENSE that this build lacks.
std::unique_ptr<DenseLibrary> make_dense_library();

std::unique_ptr<DenseLibrary> make_builtin_library();
#ifdef TRIT_HAVE_ONEDNN
std::unique_ptr<DenseLibrary> make_onednn_library(bool bf16_pairs);
#endif

}  // namespace trit::runtime
