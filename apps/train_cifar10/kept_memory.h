// SPDX-License-Identifier: MIT
//
// Memory of LibTorch's large CPU tensors. A step of training makes and drops the same tensors of some
// megabytes each time; the C library gives such memory back to the system, which then clears and maps it
// again page by page.
#pragma once

namespace trit::train {

/// From here on CPU tensors of 1 MiB and more lie on huge pages where the system gives them, and what one
/// leaves is kept for the next of about its size. Smaller ones are LibTorch's as before. Once a process,
/// before the first tensor.
void keep_tensor_memory();

}  // namespace trit::train
