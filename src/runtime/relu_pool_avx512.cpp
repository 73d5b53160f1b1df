// SPDX-License-Identifier: MIT
#if defined(__AVX2__)
#include "runtime/relu_pool_loops.h"

namespace trit::runtime {
const ReluPoolRows* const kReluPoolAvx512 = &kRows;
}
#else
#include "runtime/relu_pool_rows.h"

namespace trit::runtime {
const ReluPoolRows* const kReluPoolAvx512 = nullptr;
}
#endif
