// SPDX-License-Identifier: MIT
//
// The fuzzed build's disk. Its MappedFile finds the bytes of a path here and makes no system call, so that an
// execution costs microseconds; and the bytes lie in an allocation of their own, so that AddressSanitizer
// sees the first read past a file's end, which a mapping hides up to the end of its page.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace trit::fuzz {

/// Puts a copy of `bytes` under `path`, in place of what was there. Not while a checkpoint of it is open.
void set_file(const std::string& path, std::span<const std::uint8_t> bytes);

}  // namespace trit::fuzz
