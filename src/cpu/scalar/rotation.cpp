// SPDX-License-Identifier: MIT
#include "format/rotation.h"

#include "cpu/scalar/scalar.h"

namespace trit::scalar {

void walsh_hadamard_row(float* x, std::int64_t in_features, std::int64_t block) {
  trit::walsh_hadamard_row({x, static_cast<std::size_t>(in_features)}, block);
}

}  // namespace trit::scalar
