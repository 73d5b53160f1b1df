// SPDX-License-Identifier: MIT
//
// The product through a layout's ManyTokensKernel.
#pragma once

#include "cpu/generic/product.h"

namespace trit::generic {

/// All of y; the layout has such a kernel, and there are at least as many tokens as it wants.
void product_many_tokens(Parallel& parallel, const Product& args);

}  // namespace trit::generic
