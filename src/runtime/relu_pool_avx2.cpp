// SPDX-License-Identifier: MIT
#if defined(__AVX2__)
#include "runtime/relu_pool_loops.h"

namespace trit::runtime {
const ReluPoolRows* const kReluPoolAvx2 = &kRows;
}
#else
#include "runtime/relu_pool_rows.h"

namespace trit::runtime {
const ReluPoolRows* const kReluPoolAvx2 = nullptr;
}
#endif
