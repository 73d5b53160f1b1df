// SPDX-License-Identifier: MIT
//
// The instructions of src/cuda/gemm_sm90/wgmma.cuh on the CPU, after the PTX manual.
//
// A wgmma happens as late as it may: at the wait that ends its group, with the registers and the shared
// memory of that moment. So an A register that is unpacked again, or a stage that is given back, too early
// gives wrong sums.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

#include "cuda/emulator/sm90_state.h"
#include "trit/format.h"

namespace trit::cuda::ptx {

namespace detail {

inline float float_of(WgmmaType type, std::uint16_t bits) {
  return type == WgmmaType::bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
}

// d[64, tokens] (+)= a[64, 16] * b[tokens, 16]ᵀ of 16-bit floats; d holds fp32. Of the sums of the hardware
// the order is not known: here each is exact before it is rounded.
inline void multiply_floats(const std::array<const Wgmma*, 128>& threads, const std::int8_t (&b)[256][32]) {
  const Wgmma& first = *threads[0];
  const auto element = [&](const void* bytes, int i) {
    std::uint16_t bits;
    std::memcpy(&bits, static_cast<const std::uint8_t*>(bytes) + 2 * i, 2);
    return static_cast<double>(float_of(first.type, bits));
  };
  static thread_local double a[64][16];
  for (unsigned t = 0; t < 128; ++t) {
    for (unsigned r = 0; r < 4; ++r) {
      for (int i = 0; i < 2; ++i) {
        a[16 * (t / 32) + t % 32 / 4 + 8 * (r % 2)][2 * (t % 4) + 8 * (r / 2) + static_cast<unsigned>(i)] =
            element(&threads[t]->a[r], i);
      }
    }
  }
  for (unsigned t = 0; t < 128; ++t) {
    for (std::int32_t i = 0; i < first.tokens / 2; ++i) {
      const double* row = a[16 * (t / 32) + t % 32 / 4 + 8 * static_cast<unsigned>(i % 4 / 2)];
      const std::int8_t* column = b[8 * (i / 4) + 2 * static_cast<std::int32_t>(t % 4) + i % 2];
      double sum = first.accumulate ? static_cast<double>(std::bit_cast<float>(threads[t]->d[i])) : 0.0;
      for (int k = 0; k < 16; ++k) {
        sum += row[k] * element(column, k);
      }
      threads[t]->d[i] = std::bit_cast<std::int32_t>(static_cast<float>(sum));
    }
  }
}

// d[64, tokens] (+)= a[64, 32] * b[tokens, 32]ᵀ of a warpgroup.
inline void multiply_warpgroup(const std::array<const Wgmma*, 128>& threads) {
  const Wgmma& first = *threads[0];
  const std::uint32_t start = static_cast<std::uint32_t>(first.b & 0x3FFFU) << 4U;
  const std::uint32_t eight_rows = static_cast<std::uint32_t>((first.b >> 32U) & 0x3FFFU) << 4U;
  if (first.b >> 62U != 1 || ((first.b >> 49U) & 7U) != 0 || eight_rows != 1024) {
    emulator::fail(
        "wgmma: a descriptor that is not of 128-byte swizzled rows, 1024 bytes from 8 rows to 8 rows");
  }
  static thread_local std::int8_t a[64][32];
  static thread_local std::int8_t b[256][32];
  for (std::int32_t token = 0; token < first.tokens; ++token) {
    for (std::uint32_t chunk = 0; chunk < 2; ++chunk) {
      const std::uint32_t row = static_cast<std::uint32_t>(token);
      const std::uint32_t address = start + row / 8 * eight_rows + row % 8 * 128 + chunk * 16;
      std::memcpy(&b[token][16 * chunk], emulator::shared_pointer(swizzled(address)), 16);
    }
  }
  for (unsigned t = 0; t < 128; ++t) {
    if (threads[t]->b != first.b || threads[t]->tokens != first.tokens ||
        threads[t]->accumulate != first.accumulate || threads[t]->type != first.type) {
      emulator::fail("wgmma: the threads of the warpgroup differ in descriptor, type, shape or accumulation");
    }
    for (unsigned r = 0; r < 4; ++r) {
      std::memcpy(&a[16 * (t / 32) + t % 32 / 4 + 8 * (r % 2)][4 * (t % 4) + 16 * (r / 2)], &threads[t]->a[r],
                  4);
    }
  }
  if (first.type != WgmmaType::int8) {
    return multiply_floats(threads, b);
  }
  for (unsigned t = 0; t < 128; ++t) {
    const unsigned top = 16 * (t / 32) + t % 32 / 4;
    for (std::int32_t i = 0; i < first.tokens / 2; ++i) {
      const std::int8_t* row = a[top + 8 * static_cast<unsigned>(i % 4 / 2)];
      const std::int8_t* column = b[8 * (i / 4) + 2 * static_cast<std::int32_t>(t % 4) + i % 2];
      std::int32_t sum = 0;
      for (int k = 0; k < 32; ++k) {
        sum += std::int32_t{row[k]} * column[k];
      }
      std::int32_t& d = threads[t]->d[i];
      if (!first.accumulate) {
        d = sum;
      } else if (__builtin_add_overflow(d, sum, &d)) {  // the hardware wraps; the kernels must not get there
        emulator::fail("wgmma: the int32 accumulator overflowed");
      }
    }
  }
}

inline void run_wgmma_groups(std::span<void* const> states, std::size_t pending) {
  const auto of = [&](unsigned t) -> WgmmaGroups& { return *static_cast<WgmmaGroups*>(states[t]); };
  while (of(0).committed.size() > pending) {
    const std::size_t count = of(0).committed.front().size();
    for (std::size_t i = 0; i < count; ++i) {
      std::array<const Wgmma*, 128> threads;
      for (unsigned t = 0; t < 128; ++t) {
        if (of(t).committed.empty() || of(t).committed.front().size() != count) {
          emulator::fail("wgmma: the threads of the warpgroup have committed different groups");
        }
        threads[t] = &of(t).committed.front()[i];
      }
      multiply_warpgroup(threads);
    }
    for (unsigned t = 0; t < 128; ++t) {
      of(t).committed.erase(of(t).committed.begin());
    }
  }
}

}  // namespace detail

inline void wgmma_fence() { detail::wgmma_groups().fenced = true; }

namespace detail {
inline void open_wgmma(const Wgmma& one) {
  WgmmaGroups& groups = wgmma_groups();
  if (!groups.fenced) {
    emulator::fail("wgmma: no wgmma.fence since the last group");
  }
  groups.open.push_back(one);
}
}  // namespace detail

template <int kTokens>
struct Wgmma {
  static void multiply(std::int32_t (&d)[kTokens / 2], const std::uint32_t (&a)[4],
                       std::uint64_t b_descriptor, std::int32_t accumulate) {
    detail::open_wgmma({d, a, b_descriptor, kTokens, accumulate != 0});
  }
};

template <DataType kType, int kTokens>
struct FloatWgmma {
  static void multiply(std::int32_t (&d)[kTokens / 2], const std::uint32_t (&a)[4],
                       std::uint64_t b_descriptor, std::int32_t accumulate) {
    detail::open_wgmma(
        {d, a, b_descriptor, kTokens, accumulate != 0,
         kType == DataType::bfloat16 ? detail::WgmmaType::bfloat16 : detail::WgmmaType::float16});
  }
};

inline void wgmma_commit() {
  detail::WgmmaGroups& groups = detail::wgmma_groups();
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
  groups.fenced = false;  // the kernels unpack new A registers for each group
}

template <int kPending>
void wgmma_wait() {
  emulator::collective(emulator::Group::warpgroup, 0, "wgmma.wait_group", &detail::wgmma_groups(),
                       [](std::span<void* const> states) { detail::run_wgmma_groups(states, kPending); });
}

inline void pin_register(std::uint32_t& /*value*/) {}
inline void pin_register(std::int32_t& /*value*/) {}

}  // namespace trit::cuda::ptx
