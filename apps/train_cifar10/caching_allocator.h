// SPDX-License-Identifier: MIT
//
// A caching allocator for LibTorch's large CPU tensors. Each training step allocates and frees the same
// tensors of several megabytes. The C library returns such memory to the system, which then has to clear and
// map it again, page by page.
#pragma once

namespace trit::train {

/// From now on, CPU tensors of 1 MiB and more are allocated on huge pages where the system provides them, and
/// the memory of a freed one is reused for the next of about its size. Smaller tensors use LibTorch's
/// allocator as before. Call once per process, before the first tensor.
void install_caching_allocator();

}  // namespace trit::train
