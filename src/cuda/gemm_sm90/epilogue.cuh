// SPDX-License-Identifier: MIT
//
// The end of the Hopper GEMM: accumulators to outputs, and the store from registers.
#pragma once

#include <cstdint>

#include "cuda/common/ptx_sm90.cuh"
#include "cuda/gemm_sm90/parameters.h"

namespace trit::cuda {

/// beta and bias of an output row. Without a bias it is -0: x + -0 is x, bit for bit, for every x.
struct RowEpilogue {
  float scale = 0.0F;
  float bias = -0.0F;
};
__device__ __forceinline__ RowEpilogue row_epilogue(const GemmSm90Parameters& p, std::int32_t row) {
  RowEpilogue e;
  if (row < p.out_features) {
    e.scale = p.weight_scales == nullptr
                  ? 1.0F
                  : p.weight_scales[static_cast<std::int64_t>(row) * p.weight_scale_stride];
    if (p.bias != nullptr) {
      e.bias = p.bias[row];
    }
  }
  return e;
}

/// y = ((float)acc * s) * beta + bias, each step rounded; the operand's factor is a power of two and leaves
/// exactly.
template <class Operand>
__device__ __forceinline__ float epilogue(std::int32_t acc, float token_scale, const RowEpilogue& row) {
  return __fadd_rn(__fmul_rn(__fmul_rn(Operand::value(acc), token_scale), row.scale), row.bias);
}

__device__ __forceinline__ std::uint32_t pack_16bit(DataType type, float low, float high) {
  return type == DataType::bfloat16 ? ptx::pack_bfloat16(low, high) : ptx::pack_float16(low, high);
}

/// The four outputs of an accumulator octet: y[2 h + i] = row + 8 h, token + i.
template <class Operand>
__device__ __forceinline__ void epilogue_octet(const std::int32_t* d, const float* scales,
                                               const RowEpilogue (&rows)[2], float (&y)[4]) {
  const float2 scale = *reinterpret_cast<const float2*>(scales);
  y[0] = epilogue<Operand>(d[0], scale.x, rows[0]);
  y[1] = epilogue<Operand>(d[1], scale.y, rows[0]);
  y[2] = epilogue<Operand>(d[2], scale.x, rows[1]);
  y[3] = epilogue<Operand>(d[3], scale.y, rows[1]);
}

/// Stores the outputs of accumulator octets, 2 tokens x (row, row + 8), one octet of tokens after the other,
/// where they are inside the matrix. 8 lanes write 8 neighbouring rows: 32 bytes of fp32, a whole sector.
class OutputCursor {
 public:
  __device__ OutputCursor(const GemmSm90Parameters& p, std::int32_t token, std::int32_t row)
      : element_(p.y_type == DataType::float32 ? 4 : 2),
        position_(static_cast<std::uint8_t*>(p.y) + (token * p.y_stride + row) * element_),
        tokens_left_(p.tokens - token),
        row_inside_(row < p.out_features),
        next_row_inside_(row + 8 < p.out_features) {}

  /// y[2 h + i]: row + 8 h, token + i.
  __device__ void store(const GemmSm90Parameters& p, const float (&y)[4]) const {
    std::uint8_t* second = position_ + p.y_stride * element_;
    if (p.y_type == DataType::float32) {
      store_four<float>(second, y[0], y[1], y[2], y[3]);
    } else {
      const std::uint32_t low = pack_16bit(p.y_type, y[0], y[1]);
      const std::uint32_t high = pack_16bit(p.y_type, y[2], y[3]);
      store_four<std::uint16_t>(second, static_cast<std::uint16_t>(low),
                                static_cast<std::uint16_t>(low >> 16U), static_cast<std::uint16_t>(high),
                                static_cast<std::uint16_t>(high >> 16U));
    }
  }

  __device__ void advance(const GemmSm90Parameters& p, std::int32_t tokens) {
    position_ += tokens * p.y_stride * element_;
    tokens_left_ -= tokens;
  }

 private:
  template <class Element>
  __device__ void store_four(std::uint8_t* second, Element y0, Element y1, Element y2, Element y3) const {
    if (tokens_left_ > 0) {
      store_two(reinterpret_cast<Element*>(position_), y0, y2);
    }
    if (tokens_left_ > 1) {
      store_two(reinterpret_cast<Element*>(second), y1, y3);
    }
  }
  template <class Element>
  __device__ void store_two(Element* y, Element first, Element second) const {
    if (row_inside_) {
      y[0] = first;
    }
    if (next_row_inside_) {
      y[8] = second;
    }
  }

  std::int32_t element_;
  std::uint8_t* position_;
  std::int32_t tokens_left_;
  bool row_inside_;
  bool next_row_inside_;
};

}  // namespace trit::cuda
