// SPDX-License-Identifier: MIT
//
// A network on a GPU. Batches are cut into pieces of one size, each a CUDA graph, on two streams in turn: one
// piece is copied while the other computes. Callers take turns.
#include "runtime/engine.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "cuda/autotune/tuning.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/program.h"
#include "runtime/cuda/weights.h"

namespace trit::runtime {
namespace {

using gpu::Program;

/// Inputs and outputs of the largest layer that one graph works on: about what an H200's L2 holds, and the
/// layer reads what the one in front has just written.
constexpr std::int64_t kLayerBytesPerGraph = std::int64_t{160} << 20;
constexpr std::int64_t kMaxImages = 4096;
/// Batch sizes whose graphs are kept.
constexpr std::size_t kMaxPrograms = 16;

std::int64_t images_per_graph(const Network& network) {
  const std::int64_t largest = largest_layer(network);
  return std::clamp<std::int64_t>(kLayerBytesPerGraph / (largest * std::int64_t{sizeof(float)}), 1,
                                  kMaxImages);
}

class CudaEngine final : public Engine {
 public:
  CudaEngine(const io::SafetensorsFile& file, const ModelOptions& options, Network& network,
             std::span<const Step> steps)
      : network_(network),
        steps_(steps),
        gpu_(gpu::find_gpu()),
        plans_(gpu_.name, gpu_.device),
        weights_(file, network),
        chunk_(options.images_per_launch > 0 ? options.images_per_launch : images_per_graph(network)) {
    for (gpu::Slot& slot : slots_) {
      slot.stream = gpu::make_stream();
    }
    program(0, 1, false);  // a layer that the library cannot run shows now
  }

  Backend backend() const override { return Backend::cuda; }
  PanelFormat layout() const override { return PanelFormat::two_bit; }
  int threads() const override { return 1; }
  std::string dense_library() const override {
    std::string text = slots_[0].cudnn ? slots_[0].cudnn->name() : "";
    if (slots_[0].cublas) {
      text += (text.empty() ? "" : ", ") + slots_[0].cublas->name();
    }
    return text.empty() ? "none" : text;
  }
  ModelMemory memory() const override {
    const std::lock_guard lock(mutex_);
    ModelMemory memory{gpu_.name, weights_.size(), 0};
    for (const auto& [key, own] : programs_) {
      memory.working_bytes += own->device_bytes();
    }
    return memory;
  }

  void run(const float* x, std::int64_t batch, float* y) override {
    const std::lock_guard lock(mutex_);
    run_pieces(reinterpret_cast<const std::byte*>(x), sizeof(float), batch, y, false);
  }

  void run_images(const std::uint8_t* pixels, std::span<const float> mean, std::span<const float> std,
                  std::int64_t batch, float* y) override {
    const std::lock_guard lock(mutex_);
    if (mean.size() > gpu::kMaxImageChannels) {
      throw Error("backend 'cuda': images of " + std::to_string(mean.size()) + " channels, wanted at most " +
                  std::to_string(gpu::kMaxImageChannels));
    }
    take_normalisation(mean, std);
    run_pieces(reinterpret_cast<const std::byte*>(pixels), 1, batch, y, true);
  }

 private:
  /// The means are part of the graphs of bytes.
  void take_normalisation(std::span<const float> mean, std::span<const float> std) {
    if (std::equal(mean.begin(), mean.end(), normalize_.mean, normalize_.mean + normalize_.channels) &&
        std::equal(std.begin(), std.end(), normalize_.std, normalize_.std + normalize_.channels)) {
      return;
    }
    std::erase_if(programs_, [](const auto& entry) { return std::get<2>(entry.first); });
    normalize_.channels = static_cast<int>(mean.size());
    normalize_.plane = numel(network_.shapes.front()) / normalize_.channels;
    std::copy(mean.begin(), mean.end(), normalize_.mean);
    std::copy(std.begin(), std.end(), normalize_.std);
  }

  Program& program(std::size_t slot, std::int64_t images, bool bytes_in) {
    auto& entry = programs_[{slot, images, bytes_in}];
    if (!entry) {
      try {
        entry = std::make_unique<Program>(gpu::ProgramParts{network_, steps_, plans_, gpu_.device},
                                          slots_[slot], images, bytes_in, normalize_);
      } catch (...) {
        programs_.erase({slot, images, bytes_in});
        throw;
      }
    }
    return *entry;
  }

  /// A failed run leaves nothing under way that reads or writes the programs' memory.
  void run_pieces(const std::byte* x, std::size_t element, std::int64_t batch, float* y, bool bytes_in) {
    try {
      run_in_turn(x, element, batch, y, bytes_in);
    } catch (...) {
      for (const gpu::Slot& slot : slots_) {
        cudaStreamSynchronize(slot.stream.get());
      }
      throw;
    }
  }

  void run_in_turn(const std::byte* x, std::size_t element, std::int64_t batch, float* y, bool bytes_in) {
    const std::int64_t out = numel(network_.shapes.back());
    const std::size_t image_bytes = static_cast<std::size_t>(numel(network_.shapes.front())) * element;
    if (programs_.size() > kMaxPrograms) {
      programs_.clear();
    }
    // Pieces that differ by one image at most.
    const std::int64_t pieces = (batch + chunk_ - 1) / chunk_;
    struct Running {
      Program* program = nullptr;
      std::int64_t begin = 0;
    };
    std::array<Running, 2> running{};
    const auto finish = [&](Running& one) {
      if (one.program != nullptr) {
        Program& done = *std::exchange(one.program, nullptr);
        done.finish();
        std::memcpy(y + one.begin * out, done.output(),
                    static_cast<std::size_t>(done.images() * out) * sizeof(float));
      }
    };
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      const auto slot = static_cast<std::size_t>(piece % 2);
      const std::int64_t begin = batch * piece / pieces;
      const std::int64_t images = batch * (piece + 1) / pieces - begin;
      finish(running[slot]);
      Program& next = program(slot, images, bytes_in);
      std::memcpy(next.input(), x + static_cast<std::size_t>(begin) * image_bytes,
                  static_cast<std::size_t>(images) * image_bytes);
      next.start();
      running[slot] = {&next, begin};
    }
    finish(running[static_cast<std::size_t>(pieces % 2)]);
    finish(running[static_cast<std::size_t>((pieces + 1) % 2)]);
  }

  const Network& network_;
  std::span<const Step> steps_;
  gpu::Gpu gpu_;
  cuda::TunedPlans plans_;
  gpu::Weights weights_;
  std::int64_t chunk_;
  std::array<gpu::Slot, 2> slots_;
  gpu::Normalize normalize_{};
  mutable std::mutex mutex_;
  std::map<std::tuple<std::size_t, std::int64_t, bool>, std::unique_ptr<Program>> programs_;
};

}  // namespace

std::unique_ptr<Engine> make_cuda_engine(const io::SafetensorsFile& file, const ModelOptions& options,
                                         Network& network, std::span<const Step> steps) {
  try {
    return std::make_unique<CudaEngine>(file, options, network, steps);
  } catch (const Error& error) {
    if (options.backend == Backend::automatic) {
      throw Error(std::string("TRIT_BACKEND: ") + error.what());
    }
    throw;
  }
}

}  // namespace trit::runtime
