// SPDX-License-Identifier: MIT
#include "cpu/avx2/avx2.h"
#include "cpu/generic/walsh_hadamard.h"

namespace trit::avx2 {

void walsh_hadamard_row(float* x, std::int64_t in_features, std::int64_t block) {
  vectors::walsh_hadamard_row<32>(x, in_features, block);
}

}  // namespace trit::avx2
