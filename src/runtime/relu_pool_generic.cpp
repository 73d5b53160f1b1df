// SPDX-License-Identifier: MIT
#include "runtime/relu_pool_loops.h"

namespace trit::runtime {
const ReluPoolRows* const kReluPoolGeneric = &kRows;
}
