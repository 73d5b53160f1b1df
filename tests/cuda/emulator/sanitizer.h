// SPDX-License-Identifier: MIT
//
// TRIT_EMULATOR_ASAN: built with AddressSanitizer, by gcc or clang.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define TRIT_EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRIT_EMULATOR_ASAN 1
#endif
#endif
