// SPDX-License-Identifier: MIT
//
// Checks of a caller's arguments, on the host. Each throws an Error that names what was found and what is
// wanted.
#pragma once

#include <cstdint>
#include <string>

#include "trit/cuda.h"
#include "trit/error.h"

namespace trit::cuda {

/// Whether a pointer, which may be null, is a multiple of `alignment`.
inline bool is_aligned(const void* pointer, std::uintptr_t alignment) {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

inline void require_aligned(const void* pointer, std::size_t alignment, const char* function,
                            const char* argument) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (pointer == nullptr || address % alignment != 0) {
    throw Error(std::string("cuda::") + function + ": " + argument + " is " +
                (pointer == nullptr ? "null"
                                    : "at an address that is " + std::to_string(address % alignment) +
                                          " modulo " + std::to_string(alignment)) +
                ", wanted a device pointer aligned to " + std::to_string(alignment) + " bytes");
  }
}

inline void require_matrix(std::int64_t out_features, std::int64_t in_features, const char* function) {
  // 2^31 - 64 output rows: row numbers are int32 on the GPU, and are rounded up to a tile.
  if (out_features < 1 || out_features > 2'147'483'584 || in_features < 1 || in_features > kMaxInFeatures) {
    throw Error(std::string("cuda::") + function + ": a matrix of " + std::to_string(out_features) + " x " +
                std::to_string(in_features) + ", wanted 1 .. 2147483584 rows and 1 .. " +
                std::to_string(kMaxInFeatures) + " columns");
  }
}

inline void require_tokens(std::int64_t tokens, const char* function) {
  if (tokens < 0 || tokens > 2'147'483'647) {
    throw Error(std::string("cuda::") + function + ": " + std::to_string(tokens) +
                " tokens, wanted 0 .. 2147483647");
  }
}

}  // namespace trit::cuda
