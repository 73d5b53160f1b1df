// SPDX-License-Identifier: MIT
//
// TRIT_CLONES in front of a function that calls no other: the compiler makes a copy for AVX-512, one for AVX2
// and one for any x86-64, and the processor's is chosen when the library is loaded. Other processors have the
// plain copy.
#pragma once

#if defined(__x86_64__)
#define TRIT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TRIT_CLONES
#endif
