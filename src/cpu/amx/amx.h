// SPDX-License-Identifier: MIT
//
// The AMX row of the kernel table: products of many tokens. The layout and everything else are avx512_vnni's;
// the contracts are in cpu/table.h.
#pragma once

#include <cstdint>

#include "cpu/table.h"

namespace trit::amx {

/// Fewer tokens than this go to the AVX-512 tile. Unpacking a panel costs AMX as much as 4 to 5 tokens cost
/// AVX-512, whatever their number: 4 tokens of 4096 x 4096 take 217 us there, 5 take 252 there and 224 here,
/// 8 take 415 and 228.
inline constexpr std::int64_t kMinTokens = 5;
/// Tokens of a block of the arrangement.
inline constexpr std::int64_t kBlockTokens = 32;
/// Group scales: the inputs of a group are whole steps.
inline constexpr std::int64_t kGroupInputs = 64;

std::int64_t arranged_bytes(std::int64_t tokens, std::int64_t k);
void arrange(const std::int8_t* q, std::int64_t q_stride, std::int64_t tokens, std::int64_t k,
             std::int8_t* arranged);
void product(const ManyTokens& args);

}  // namespace trit::amx
