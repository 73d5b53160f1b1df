// SPDX-License-Identifier: MIT
//
// What runs a network: the CPU (cpu_engine.cpp), or a GPU (cuda/engine.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/fusion.h"
#include "trit/model.h"
#include "trit/safetensors.h"

namespace trit::runtime {

/// A network made ready for one machine. run() may be called by many threads at once.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual Backend backend() const = 0;
  virtual PanelFormat layout() const = 0;
  virtual int threads() const = 0;
  virtual std::string dense_library() const = 0;
  virtual ModelMemory memory() const = 0;
  /// x [batch, input] -> y [batch, output].
  virtual void run(const float* x, std::int64_t batch, float* y) = 0;
  /// The same of bytes [batch, channels, ...], normalised per channel: (byte / 255 - mean) / std.
  virtual void run_images(const std::uint8_t* pixels, std::span<const float> mean, std::span<const float> std,
                          std::int64_t batch, float* y) = 0;
};

/// Both take the tensors out of `network`; `network` and `steps` must outlive the result. They check the
/// codes and the checksum of `file`, which may be closed then.
std::unique_ptr<Engine> make_cpu_engine(const io::SafetensorsFile& file, const ModelOptions& options,
                                        Network& network, std::span<const Step> steps);
std::unique_ptr<Engine> make_cuda_engine(const io::SafetensorsFile& file, const ModelOptions& options,
                                         Network& network, std::span<const Step> steps);

}  // namespace trit::runtime
