// SPDX-License-Identifier: MIT
//
// What a shared library exports: the names declared between these two macros, which is everything in
// include/trit. All other names of the library are hidden.
#pragma once

#if defined(__GNUC__)
#define TRIT_EXPORT_BEGIN _Pragma("GCC visibility push(default)")
#define TRIT_EXPORT_END _Pragma("GCC visibility pop")
#else
#define TRIT_EXPORT_BEGIN
#define TRIT_EXPORT_END
#endif
