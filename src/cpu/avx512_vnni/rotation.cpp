// SPDX-License-Identifier: MIT
#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/generic/walsh_hadamard.h"

namespace trit::avx512_vnni {

void walsh_hadamard_row(float* x, std::int64_t in_features, std::int64_t block) {
  vectors::walsh_hadamard_row<64>(x, in_features, block);
}

}  // namespace trit::avx512_vnni
