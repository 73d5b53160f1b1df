// SPDX-License-Identifier: MIT
#include "runtime/cuda/weights.h"

#include <algorithm>
#include <map>

#include "io/checksum.h"
#include "trit/crc32c.h"
#include "trit/io.h"

namespace trit::runtime::gpu {
namespace {

constexpr std::size_t kAlignment = 256;

}  // namespace

std::byte* Weights::take(std::size_t bytes) {
  std::byte* const place = memory_ && bytes > 0 ? memory_.get() + used_ : nullptr;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return place;
}

const float* Weights::floats(std::vector<float>& values) {
  std::byte* const place = take(values.size() * sizeof(float));
  if (place != nullptr) {
    check(cudaMemcpy(place, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice),
          "copying weights");
    values = {};
  }
  return reinterpret_cast<const float*>(place);
}

const std::uint8_t* Weights::ternary(const TernaryView& matrix) {
  auto* const prepared =
      reinterpret_cast<std::uint8_t*>(take(cuda::weight_bytes(matrix.out_features, matrix.in_features)));
  if (prepared != nullptr) {
    auto* const codes = reinterpret_cast<std::uint8_t*>(staging_.get());
    check(cudaMemcpy(codes, matrix.codes.data(), matrix.codes.size(), cudaMemcpyHostToDevice),
          "copying codes");
    cuda::prepare_weights(codes, matrix.out_features, matrix.in_features, prepared, nullptr);
  }
  return prepared;
}

Weights::Weights(const io::SafetensorsFile& file, const Network& network) {
  io::refuse_rotation(file.metadata(), file.path().string());
  std::map<std::string, std::uint32_t> crcs;
  std::size_t largest_codes = 0;
  for (std::size_t i = 1; i < network.graph.nodes.size(); ++i) {
    const auto matrix = network.graph.nodes[i].op->ternary_matrix();
    if (!matrix) {
      continue;
    }
    const std::string tensor = network.graph.nodes[i].name + ".weight";
    const std::string what = file.path().string() + ": " + describe(network.graph, i) + ": tensor " + tensor;
    if (matrix->in_features > cuda::kMaxInFeatures) {
      throw Error(what + ": " + std::to_string(matrix->in_features) + " inputs, wanted at most " +
                  std::to_string(cuda::kMaxInFeatures) + ", since sums are 32-bit");
    }
    if (matrix->group != 0) {
      throw Error(what + ": scales for groups of " + std::to_string(matrix->group) +
                  " inputs, which the backend 'cuda' has no kernels for; wanted one scale, or one per row "
                  "(a CPU backend runs such a model)");
    }
    trit::check(*matrix, what);
    crcs[tensor] = crc32c(std::as_bytes(matrix->codes));
    largest_codes = std::max(largest_codes, matrix->codes.size());
  }
  // Last: what is wrong in a way that can be named has been named.
  io::verify_checksum(file, crcs);

  const auto upload_all = [&] {
    used_ = 0;
    for (std::size_t i = 1; i < network.graph.nodes.size(); ++i) {
      network.graph.nodes[i].op->upload(*this);
    }
  };
  upload_all();
  memory_ = allocate_device(used_, "the model's weights");
  staging_ = allocate_device(largest_codes, "a layer's codes");
  if (memory_) {
    upload_all();
  }
  check(cudaStreamSynchronize(nullptr), "preparing weights");
  staging_.reset();
}

}  // namespace trit::runtime::gpu
