// SPDX-License-Identifier: MIT
//
// decode's copy of a part of x from global to shared memory.
#pragma once

#include "cuda/common/fragments.cuh"
#include "cuda/common/platform.cuh"

namespace trit::cuda {

/// Items of 4 tokens x 128 inputs, a 16-byte unit per lane, kInFlight of them in registers. (A wait for
/// cp.async would also wait for the weights in flight; bulk copies take 0.3 us longer than loads.)
template <int kTokenTiles>
class PartOfX {
 public:
  /// Of the `warps` that share the part, number `warp` copies tiles warp, warp + warps, ... The part's tiles are
  /// `tile_step` apart in q, and neighbours in x.
  __device__ PartOfX(const std::int8_t* q, unsigned row_bytes, unsigned begin, unsigned tiles,
                     unsigned tile_step, unsigned tokens, std::uint8_t* x, unsigned x_stride, unsigned lane,
                     unsigned warp, unsigned warps)
      : q_(q + lane / 8 * row_bytes),
        row_bytes_(row_bytes),
        offset_((begin + warp * tile_step) * kTileInputs + lane % 8 * 16),
        end_(min(row_bytes, (begin + tiles * tile_step) * kTileInputs)),
        tokens_(tokens - min(tokens, lane / 8)),
        x_(x + lane / 8 * x_stride + warp * kTileInputs + lane % 8 * 16),
        x_stride_(x_stride),
        step_(warps * tile_step * kTileInputs),
        x_step_(warps * kTileInputs) {}

  __device__ __forceinline__ bool any() const { return offset_ - offset_ % kTileInputs < end_; }

  /// Loads the next items into registers; store() moves them to shared memory.
  __device__ __forceinline__ void load() {
#pragma unroll
    for (unsigned i = 0; i < kInFlight; ++i) {
      const unsigned at = offset_ + i / kItemsPerTile * step_;
      const unsigned token = 4 * (i % kItemsPerTile);
      if (token < tokens_ && at < end_) {
        units_[i] = *reinterpret_cast<const uint4*>(q_ + token * row_bytes_ + at);
      }
    }
  }
  __device__ __forceinline__ void store() {
#pragma unroll
    for (unsigned i = 0; i < kInFlight; ++i) {
      const unsigned tile = i / kItemsPerTile;
      const unsigned token = 4 * (i % kItemsPerTile);
      if (token < tokens_ && offset_ + tile * step_ < end_) {
        *reinterpret_cast<uint4*>(x_ + token * x_stride_ + tile * x_step_) = units_[i];
      }
    }
    offset_ += kInFlight / kItemsPerTile * step_;
    x_ += kInFlight / kItemsPerTile * x_step_;
  }

 private:
  static constexpr unsigned kInFlight = 4 * kTokenTiles;
  static constexpr unsigned kItemsPerTile = 2 * kTokenTiles;  // of 4 tokens
  const std::int8_t* q_;
  unsigned row_bytes_, offset_, end_, tokens_;
  std::uint8_t* x_;
  unsigned x_stride_, step_, x_step_;
  uint4 units_[kInFlight] = {};
};

}  // namespace trit::cuda
