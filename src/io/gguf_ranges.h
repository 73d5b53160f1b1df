// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf.h"

namespace trit::io::gguf {

/// Checks that the tensors follow each other with nothing but padding between them, decides which blocks those
/// of type 42 have, and turns offsets in the data into offsets in the file. Throws Error, starting with
/// `where`.
void place_tensors(Header& header, std::uint64_t data_begin, std::uint64_t data_bytes,
                   const std::string& where);

}  // namespace trit::io::gguf
