// SPDX-License-Identifier: MIT
//
// The inner tile of the hybrid block: 64 rows by vpdpbusd and 64 rows by lookups, four tokens.
//
// One asm block, so that both compilers give the same loop: it needs all 32 registers.
//   zmm0-15   sums of the first panel: token t, operand j (zmm24 + j) in zmm(4t + j), int32
//   zmm16-23  sums of the second panel: token t, half h in zmm(16 + 2t + h), int16
//   zmm24-27  fields 0, 1, 2 of a line, and the line itself
//   zmm28-29  the indices of 2 x 32 rows
//   zmm30     four inputs of a token; or a looked-up value
//   zmm31     a table, then the other looked-up value
// A unit is 36 dot steps (1 broadcast, 4 vpdpbusd) and 48 lookup steps (1 load, 2 vpermw, 2 vpaddw), mixed 3
// to 4 so that each kind always has work in the scheduler's window.
#include "cpu/avx512_vnni/hybrid/block.h"

#include <cstdint>

// clang-format off
// NOLINTBEGIN(cppcoreguidelines-macro-usage): the text of one asm block

// Line n of the unit and its fields.
#define TRIT_UNPACK(n)                                                  \
  "vmovdqa64 64*" #n "(%[weights]), %%zmm27\n\t"                        \
  "vpandd (%[constants])%{1to16%}, %%zmm27, %%zmm24\n\t"                \
  "vpandd 4(%[constants])%{1to16%}, %%zmm27, %%zmm25\n\t"               \
  "vpandd 8(%[constants])%{1to16%}, %%zmm27, %%zmm26\n\t"

// One token's four inputs of line n.
#define TRIT_DOT(n, token, a0, a1, a2, a3)                              \
  "vpbroadcastd 4*" #n "+256*" #token "-384(%[q]), %%zmm30\n\t"         \
  "vpdpbusd %%zmm30, %%zmm24, %%zmm" #a0 "\n\t"                         \
  "vpdpbusd %%zmm30, %%zmm25, %%zmm" #a1 "\n\t"                         \
  "vpdpbusd %%zmm30, %%zmm26, %%zmm" #a2 "\n\t"                         \
  "vpdpbusd %%zmm30, %%zmm27, %%zmm" #a3 "\n\t"
#define TRIT_DOT0(n) TRIT_DOT(n, 0, 0, 1, 2, 3)
#define TRIT_DOT1(n) TRIT_DOT(n, 1, 4, 5, 6, 7)
#define TRIT_DOT2(n) TRIT_DOT(n, 2, 8, 9, 10, 11)
#define TRIT_DOT3(n) TRIT_DOT(n, 3, 12, 13, 14, 15)

// Word o of the indices; vpermw looks at the low five bits of a lane, so a shift gives the next triple.
#define TRIT_INDEX(o)                                                   \
  "vmovdqa64 64*9+128*" #o "(%[weights]), %%zmm28\n\t"                  \
  "vmovdqa64 64*9+128*" #o "+64(%[weights]), %%zmm29\n\t"
#define TRIT_NEXT                                                       \
  "vpsrlw $5, %%zmm28, %%zmm28\n\t"                                     \
  "vpsrlw $5, %%zmm29, %%zmm29\n\t"

// One token's table of triple s.
#define TRIT_LOOK(s, token, a0, a1)                                     \
  "vmovdqa64 256*" #s "+64*" #token "(%[tables]), %%zmm31\n\t"          \
  "vpermw %%zmm31, %%zmm28, %%zmm30\n\t"                                \
  "vpermw %%zmm31, %%zmm29, %%zmm31\n\t"                                \
  "vpaddw %%zmm30, %%zmm" #a0 ", %%zmm" #a0 "\n\t"                      \
  "vpaddw %%zmm31, %%zmm" #a1 ", %%zmm" #a1 "\n\t"
#define TRIT_LOOK0(s) TRIT_LOOK(s, 0, 16, 17)
#define TRIT_LOOK1(s) TRIT_LOOK(s, 1, 18, 19)
#define TRIT_LOOK2(s) TRIT_LOOK(s, 2, 20, 21)
#define TRIT_LOOK3(s) TRIT_LOOK(s, 3, 22, 23)

// Three lines n and four triples s, each with what brings its indices: 12 dot steps and 16 lookup steps.
#define TRIT_THIRD(n0, n1, n2, i0, s0, i1, s1, i2, s2, i3, s3)                                                   \
  i0 TRIT_UNPACK(n0) TRIT_DOT0(n0) TRIT_LOOK0(s0) TRIT_DOT1(n0) TRIT_LOOK1(s0) TRIT_DOT2(n0) TRIT_LOOK2(s0) TRIT_LOOK3(s0) \
  i1 TRIT_DOT3(n0) TRIT_LOOK0(s1) TRIT_UNPACK(n1) TRIT_DOT0(n1) TRIT_LOOK1(s1) TRIT_DOT1(n1) TRIT_LOOK2(s1) TRIT_LOOK3(s1) \
  i2 TRIT_DOT2(n1) TRIT_LOOK0(s2) TRIT_DOT3(n1) TRIT_LOOK1(s2) TRIT_UNPACK(n2) TRIT_DOT0(n2) TRIT_LOOK2(s2) TRIT_LOOK3(s2) \
  i3 TRIT_DOT1(n2) TRIT_LOOK0(s3) TRIT_DOT2(n2) TRIT_LOOK1(s3) TRIT_DOT3(n2) TRIT_LOOK2(s3) TRIT_LOOK3(s3)

#define TRIT_UNIT                                                                                    \
  TRIT_THIRD(0, 1, 2, TRIT_INDEX(0), 0, TRIT_NEXT, 1, TRIT_NEXT, 2, TRIT_INDEX(1), 3)                \
  TRIT_THIRD(3, 4, 5, TRIT_NEXT, 4, TRIT_NEXT, 5, TRIT_INDEX(2), 6, TRIT_NEXT, 7)                    \
  TRIT_THIRD(6, 7, 8, TRIT_NEXT, 8, TRIT_INDEX(3), 9, TRIT_NEXT, 10, TRIT_NEXT, 11)

#define TRIT_LOAD(token, a0, a1, a2, a3, b0, b1)                        \
  "vmovdqa64 512*" #token "(%[sums]), %%zmm" #a0 "\n\t"                 \
  "vmovdqa64 512*" #token "+64(%[sums]), %%zmm" #a1 "\n\t"              \
  "vmovdqa64 512*" #token "+128(%[sums]), %%zmm" #a2 "\n\t"             \
  "vmovdqa64 512*" #token "+192(%[sums]), %%zmm" #a3 "\n\t"             \
  "vpbroadcastw 2*" #token "(%[start]), %%zmm" #b0 "\n\t"               \
  "vmovdqa64 %%zmm" #b0 ", %%zmm" #b1 "\n\t"

// Sums of int16 to those of int32: a dot product with (1, 0) takes the even lanes of a half, with (0, 1) the odd.
#define TRIT_WIDEN(at, lanes, b)                                        \
  "vmovdqa64 " at "(%[sums]), %%zmm30\n\t"                              \
  "vpdpwssd %%zmm" #lanes ", %%zmm" #b ", %%zmm30\n\t"                  \
  "vmovdqa64 %%zmm30, " at "(%[sums])\n\t"
#define TRIT_STORE(token, a0, a1, a2, a3, b0, b1)                       \
  "vmovdqa64 %%zmm" #a0 ", 512*" #token "(%[sums])\n\t"                 \
  "vmovdqa64 %%zmm" #a1 ", 512*" #token "+64(%[sums])\n\t"              \
  "vmovdqa64 %%zmm" #a2 ", 512*" #token "+128(%[sums])\n\t"             \
  "vmovdqa64 %%zmm" #a3 ", 512*" #token "+192(%[sums])\n\t"             \
  TRIT_WIDEN("512*" #token "+256", 24, b0)                              \
  TRIT_WIDEN("512*" #token "+320", 25, b0)                              \
  TRIT_WIDEN("512*" #token "+384", 24, b1)                              \
  TRIT_WIDEN("512*" #token "+448", 25, b1)

// NOLINTEND(cppcoreguidelines-macro-usage)
// clang-format on

namespace trit::avx512_vnni::hybrid {

static_assert(kUnitBytes == 64 * 9 + 128 * 4);
static_assert(sizeof(Tokens::tables) == static_cast<std::size_t>(kUnits) * 256 * 12);
static_assert(sizeof(Tokens::q[0]) == 256);
static_assert(sizeof(Sums) == 4 * 512);

void tile(const std::uint8_t* weights, const Tokens& tokens, std::int64_t units, Sums& sums) {
  // Masks of three fields; the even and the odd lanes of int16.
  static constexpr std::uint32_t kConstants[5] = {0x03030303, 0x0c0c0c0c, 0x30303030, 1, 1 << 16};
  const std::int16_t* tables = tokens.tables[0][0];
  // In the middle: all offsets of a unit fit in a byte times 4.
  const auto* q = reinterpret_cast<const std::int8_t*>(&tokens.q) + 384;
  const char* next = reinterpret_cast<const char*>(&sums + 1);  // most often the sums of the next call
  // clang-format off
  asm volatile(
      TRIT_LOAD(0, 0, 1, 2, 3, 16, 17)
      TRIT_LOAD(1, 4, 5, 6, 7, 18, 19)
      TRIT_LOAD(2, 8, 9, 10, 11, 20, 21)
      TRIT_LOAD(3, 12, 13, 14, 15, 22, 23)
      ".p2align 5\n"
      "0:\n\t"
      "prefetcht0 (%[next])\n\t"
      "prefetcht0 64(%[next])\n\t"
      "prefetcht0 128(%[next])\n\t"
      "prefetcht0 192(%[next])\n\t"
      "prefetcht0 256(%[next])\n\t"
      "prefetcht0 320(%[next])\n\t"
      TRIT_UNIT
      "addq $1088, %[weights]\n\t"
      "addq $3072, %[tables]\n\t"
      "addq $36, %[q]\n\t"
      "addq $384, %[next]\n\t"
      "decq %[units]\n\t"
      "jnz 0b\n\t"
      "vpbroadcastd 12(%[constants]), %%zmm24\n\t"
      "vpbroadcastd 16(%[constants]), %%zmm25\n\t"
      TRIT_STORE(0, 0, 1, 2, 3, 16, 17)
      TRIT_STORE(1, 4, 5, 6, 7, 18, 19)
      TRIT_STORE(2, 8, 9, 10, 11, 20, 21)
      TRIT_STORE(3, 12, 13, 14, 15, 22, 23)
      : [weights] "+r"(weights), [tables] "+r"(tables), [q] "+r"(q), [next] "+r"(next), [units] "+r"(units)
      : [sums] "r"(&sums), [start] "r"(tokens.start), [constants] "r"(kConstants)
      : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
        "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
  // clang-format on
}

}  // namespace trit::avx512_vnni::hybrid
