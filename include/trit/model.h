// SPDX-License-Identifier: MIT
//
// A packed model file, run without torch.
//
//   auto model = trit::Model::load("model.safetensors");
//   std::vector<float> y = model.run(x, batch);
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trit/backend.h"
#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

namespace io {
class Checkpoint;
}

struct ModelOptions {
  Backend backend = Backend::automatic;         // TRIT_BACKEND is read for `automatic`
  int threads = 0;                              // 0: all that this process may use
  PanelFormat layout = PanelFormat::automatic;  // choose_layout (layout.h) for all ternary layers together
  std::int64_t images_per_launch = 0;           // cuda: one CUDA graph runs this many; 0: by their size
};

/// What the file says of the model's input. An image is given to run() as (pixel / 255 - mean) / std.
struct ModelInput {
  std::vector<std::int64_t> shape;   // without the batch, e.g. {3, 32, 32}
  std::vector<float> mean, std;      // per channel; empty if the file says nothing
  std::vector<std::string> classes;  // names of the outputs; may be empty
};

/// One layer with weights, for `trit info`.
struct LayerInfo {
  std::string name, op;             // op: "conv2d", "linear", "bit_linear"
  std::vector<std::int64_t> shape;  // of the weight, unpacked: {out, in} or {out, in, kh, kw}
  std::size_t stored_bytes = 0;     // in the file, scales, norm and bias included
  std::size_t float_bytes = 0;      // the same tensors in float32
  std::vector<float> scale;         // bit_linear only
};

/// Where a model's weights lie.
struct ModelMemory {
  std::string device;             // "NVIDIA H200"; empty for the CPU
  std::size_t weight_bytes = 0;   // on the device: packed ternary and float weights
  std::size_t working_bytes = 0;  // on the device: activations and workspaces of the batches seen so far
};

/// Immutable after load; run() may be called by many threads at once. After fork(), while no other thread was
/// in run(), a model on the CPU works in the child too: a thread that used several threads in the parent runs
/// on one there, for fork() copies no other; threads that the child starts use as many as `threads` says.
/// Results are the same bits. On a GPU the child loads the model itself, before which the parent must not
/// have used CUDA.
class Model {
 public:
  /// Throws Error that names the file, the node, the tensor, the shape found and the shape wanted.
  static Model load(const std::filesystem::path& path, const ModelOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  const ModelInput& input() const;
  const std::vector<std::int64_t>& output_shape() const;  // without the batch
  const std::vector<LayerInfo>& layers() const;
  Backend backend() const;
  /// The format of the ternary layers' panels.
  PanelFormat layout() const;
  int threads() const;
  /// The library behind dense float layers: "oneDNN 3.2.0", "oneDNN 3.2.0 with bf16 pairs",
  /// "built-in", "cuDNN 9.10.2, cuBLAS 13.0.1".
  std::string dense_library() const;
  ModelMemory memory() const;

  /// y [batch, output_shape] = the model on x [batch, input().shape]; batch >= 0. Throws Error on a wrong
  /// size.
  void run(std::span<const float> x, std::int64_t batch, std::span<float> y) const;
  std::vector<float> run(std::span<const float> x, std::int64_t batch) const;
  /// The same of images as bytes [batch, input().shape]: x = (byte / 255 - mean) / std, `mean` and `std` per
  /// channel. A GPU normalises them itself, so that a quarter of the bytes cross the bus.
  void run_images(std::span<const std::uint8_t> pixels, std::span<const float> mean,
                  std::span<const float> std, std::int64_t batch, std::span<float> y) const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Checks the network that a checkpoint carries (metadata "trit.model", docs/format.md) as Model::load does,
/// from the names, types and shapes of the tensors; their data are not read. Throws Error that names what was
/// found and what is wanted.
void check_model(const io::Checkpoint& checkpoint);
/// The same of the network's text alone, without a look at tensors. `what`, the file, starts messages.
void check_graph(std::string_view graph, const std::string& what);

}  // namespace trit

TRIT_EXPORT_END
