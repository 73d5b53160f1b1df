// SPDX-License-Identifier: MIT
//
// 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): 36 multiplications for 4x4 outputs instead of 144,
// in fp32, with the bias, and the ReLU and the 2x2 max pool behind it in the same pass.
// docs/design/convolutions.md has the algorithm, its error and its figures.
//
// Results of an image depend neither on the batch nor on the number of threads. NaN and infinite values
// appear where a direct convolution has them: a tile whose outputs are not all finite and of moderate size
// is computed again directly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "trit/backend.h"
#include "trit/parallel.h"

namespace trit::runtime {

/// Where the channels of an image lie: [channels][height][width] or [height][width][channels].
enum class ImageOrder : std::uint8_t { planes, pixels };

/// x [channels, height, width] -> y [out_channels, out_height, out_width].
struct ConvolutionShape {
  std::int64_t channels, height, width, out_channels;
  std::int64_t padding = 0;  // zeros on each side
  bool relu = false;
  bool pool = false;  // the largest of each 2x2, stride 2; a last row or column that is left over is dropped

  std::int64_t convolved_height() const { return height + 2 * padding - 2; }
  std::int64_t convolved_width() const { return width + 2 * padding - 2; }
  std::int64_t out_height() const { return pool ? convolved_height() / 2 : convolved_height(); }
  std::int64_t out_width() const { return pool ? convolved_width() / 2 : convolved_width(); }
};

namespace winograd {
struct Kernel;
}

/// The kernel for a machine that runs `backend`; null if there is none.
const winograd::Kernel* winograd_kernel(Backend backend);

/// The weights of a layer, transformed for one kernel.
class WinogradConvolution {
 public:
  /// weight [out_channels, channels, 3, 3]; bias [out_channels] or empty.
  WinogradConvolution(const winograd::Kernel& kernel, std::int64_t channels, std::int64_t out_channels,
                      std::span<const float> weight, std::span<const float> bias);

  /// Whether this is faster than a direct convolution, as far as is known, and all weights are finite.
  static bool pays(const winograd::Kernel* kernel, const ConvolutionShape& shape,
                   std::span<const float> weight);

  /// y = pool(relu(bias + w * x)) for each image. `shape` has this layer's channels.
  void run(Parallel& parallel, const ConvolutionShape& shape, std::int64_t batch, const float* x,
           ImageOrder x_order, float* y, ImageOrder y_order) const;

 private:
  const winograd::Kernel* kernel_;
  AlignedBuffer transformed_, direct_;
  std::vector<float> bias_;  // of whole blocks
};

}  // namespace trit::runtime
