// SPDX-License-Identifier: MIT
//
// In place of the backend where TRIT_CUDA is off.
#include "runtime/engine.h"
#include "trit/error.h"

namespace trit::runtime {

std::unique_ptr<Engine> make_cuda_engine(const io::SafetensorsFile& /*file*/, const ModelOptions& options,
                                         Network& /*network*/, std::span<const Step> /*steps*/) {
  std::string text;
  for (const std::string& name : available_backends()) {
    text += (text.empty() ? "" : ", ") + name;
  }
  throw Error(
      std::string(options.backend == Backend::automatic ? "TRIT_BACKEND: " : "") +
      "backend 'cuda': this build has no CUDA (build with make build CUDA=ON, or cmake -DTRIT_CUDA=ON; it "
      "needs nvcc 12.4 or newer); this machine has: " +
      text);
}

}  // namespace trit::runtime
