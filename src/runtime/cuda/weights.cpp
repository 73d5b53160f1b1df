// SPDX-License-Identifier: MIT
#include "runtime/cuda/weights.h"

#include <algorithm>
#include <map>

#include "io/checksum.h"
#include "trit/crc32c.h"

namespace trit::runtime::gpu {
namespace {

constexpr std::size_t kAlignment = 256;

}  // namespace

std::byte* Weights::take(std::size_t bytes) {
  std::byte* const place = memory_ && bytes > 0 ? memory_.get() + used_ : nullptr;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return place;
}

const void* Weights::bytes(std::span<const std::byte> values) {
  std::byte* const place = take(values.size());
  if (place != nullptr) {
    check(cudaMemcpy(place, values.data(), values.size(), cudaMemcpyHostToDevice), "copying weights");
  }
  return place;
}

const float* Weights::floats(std::vector<float>& values) {
  const void* const place = bytes(std::as_bytes(std::span(values)));
  if (place != nullptr) {
    values = {};
  }
  return static_cast<const float*>(place);
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

const void* Weights::group_scales(const TernaryView& matrix, DataType& type) {
  const bool exact = std::ranges::all_of(
      matrix.scale, [](float scale) { return float16_to_float(float_to_float16(scale)) == scale; });
  type = exact ? DataType::float16 : DataType::float32;
  std::byte* const prepared =
      take(cuda::group_scale_bytes(matrix.out_features, matrix.in_features, matrix.group, type));
  if (prepared != nullptr) {
    auto* const scale = reinterpret_cast<float*>(staging_.get());
    check(cudaMemcpy(scale, matrix.scale.data(), matrix.scale.size_bytes(), cudaMemcpyHostToDevice),
          "copying scales");
    cuda::prepare_group_scales(scale, matrix.out_features, matrix.in_features, matrix.group, type, prepared,
                               nullptr);
  }
  return prepared;
}

Weights::Weights(const io::SafetensorsFile& file, const Network& network) {
  std::map<std::string, std::uint32_t> crcs;
  std::size_t staged = 0;
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
    trit::check(*matrix, what);
    crcs[tensor] = crc32c(std::as_bytes(matrix->codes));
    staged = std::max({staged, matrix->codes.size(), matrix->group != 0 ? matrix->scale.size_bytes() : 0});
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
  staging_ = allocate_device(staged, "a layer's codes and scales");
  if (memory_) {
    upload_all();
  }
  check(cudaStreamSynchronize(nullptr), "preparing weights");
  staging_.reset();
}

}  // namespace trit::runtime::gpu
