// SPDX-License-Identifier: MIT
//
// The instructions of src/cuda/common/ptx.cuh on the CPU, after the PTX manual: which lane holds what, which
// addresses must be aligned, when a copy lands.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "cuda/emulator/device.h"
#include "trit/format.h"

namespace trit::cuda::ptx {

namespace detail {

constexpr std::uint32_t kAllLanes = 0xffffffffU;

inline std::int8_t byte_of(std::uint32_t word, unsigned i) {
  return static_cast<std::int8_t>(word >> (8 * i));
}

struct MmaArgs {
  std::int32_t* d;
  const std::uint32_t* a;
  std::uint32_t b[2];
  bool is_unsigned;  // the bytes of a
};

inline void mma_of_a_warp(std::span<void* const> lanes) {
  std::array<std::array<std::int32_t, 32>, 16> a;
  std::array<std::array<std::int8_t, 32>, 8> b;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const auto& args = *static_cast<const MmaArgs*>(lanes[lane]);
    const unsigned group = lane / 4;
    const unsigned k = lane % 4 * 4;
    for (unsigned i = 0; i < 4; ++i) {
      for (unsigned r = 0; r < 4; ++r) {
        const std::int8_t byte = byte_of(args.a[r], i);
        a[group + 8 * (r % 2)][k + 16 * (r / 2) + i] =
            args.is_unsigned ? static_cast<std::uint8_t>(byte) : std::int32_t{byte};
      }
      b[group][k + i] = byte_of(args.b[0], i);
      b[group][k + 16 + i] = byte_of(args.b[1], i);
    }
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    std::int32_t* d = static_cast<const MmaArgs*>(lanes[lane])->d;
    for (unsigned i = 0; i < 4; ++i) {
      const auto& row = a[lane / 4 + 8 * (i / 2)];
      const auto& column = b[lane % 4 * 2 + i % 2];
      std::int32_t sum = 0;
      for (unsigned k = 0; k < 32; ++k) {
        sum += row[k] * column[k];
      }
      // Without .satfinite the hardware wraps; the kernels must not get there.
      if (__builtin_add_overflow(d[i], sum, &d[i])) {
        emulator::fail("mma: the int32 accumulator overflowed");
      }
    }
  }
}

struct LdmatrixArgs {
  std::uint32_t* r;
  const std::uint8_t* row;
};

inline void ldmatrix_of_a_warp(std::span<void* const> lanes) {
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      const auto* from = static_cast<const LdmatrixArgs*>(lanes[8 * i + lane / 4]);
      std::memcpy(&static_cast<LdmatrixArgs*>(lanes[lane])->r[i], from->row + 4 * (lane % 4), 4);
    }
  }
}

}  // namespace detail

inline void mma_m16n8k32(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                         std::uint32_t b1) {
  detail::MmaArgs args{d, a, {b0, b1}, false};
  emulator::collective(emulator::Group::warp, detail::kAllLanes, "mma.m16n8k32", &args,
                       detail::mma_of_a_warp);
}

inline void mma_m16n8k32_u8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                            std::uint32_t b1) {
  detail::MmaArgs args{d, a, {b0, b1}, true};
  emulator::collective(emulator::Group::warp, detail::kAllLanes, "mma.m16n8k32.u8", &args,
                       detail::mma_of_a_warp);
}

inline std::uint32_t and_of_xor(std::uint32_t a, std::uint32_t b, std::uint32_t c) { return (a ^ b) & c; }

using emulator::shared_address;

inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  emulator::check_shared(row, 16, 16, "ldmatrix");
  detail::LdmatrixArgs args{r, static_cast<const std::uint8_t*>(row)};
  emulator::collective(emulator::Group::warp, detail::kAllLanes, "ldmatrix.x4", &args,
                       detail::ldmatrix_of_a_warp);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], std::uint32_t row) {
  ldmatrix_x4(r, emulator::shared_pointer(row));
}

inline uint4 shared_load(std::uint32_t address) {
  emulator::check_shared(emulator::shared_pointer(address), 16, 16, "ld.shared.v4");
  uint4 value;
  std::memcpy(&value, emulator::shared_pointer(address), sizeof value);
  return value;
}

inline void shared_load(std::uint32_t address, std::uint32_t& value) {
  emulator::check_shared(emulator::shared_pointer(address), 4, 4, "ld.shared");
  std::memcpy(&value, emulator::shared_pointer(address), sizeof value);
}

inline void shared_load(std::uint32_t address, float4& value) {
  emulator::check_shared(emulator::shared_pointer(address), 16, 16, "ld.shared.v4");
  std::memcpy(&value, emulator::shared_pointer(address), sizeof value);
}

inline void shared_load(std::uint32_t address, uint2& value) {
  emulator::check_shared(emulator::shared_pointer(address), 8, 8, "ld.shared.v2");
  std::memcpy(&value, emulator::shared_pointer(address), sizeof value);
}

inline void shared_store(std::uint32_t address, std::uint32_t value) {
  emulator::check_shared(emulator::shared_pointer(address), 4, 4, "st.shared");
  std::memcpy(emulator::shared_pointer(address), &value, sizeof value);
}

inline void shared_store(std::uint32_t address, const float4& value) {
  emulator::check_shared(emulator::shared_pointer(address), 16, 16, "st.shared.v4");
  std::memcpy(emulator::shared_pointer(address), &value, sizeof value);
}

inline std::uint32_t global_load(const void* global) {
  if (reinterpret_cast<std::uintptr_t>(global) % 4 != 0) {
    emulator::fail("a load of 4 bytes from an address that is not a multiple of 4");
  }
  std::uint32_t value;
  std::memcpy(&value, global, sizeof value);
  return value;
}

inline void cp_async_16(void* shared, const void* global, unsigned bytes = 16) {
  emulator::check_shared(shared, 16, 16, "cp.async");
  if (bytes > 16 || reinterpret_cast<std::uintptr_t>(global) % 16 != 0) {
    emulator::fail("cp.async: " + std::to_string(bytes) +
                   " bytes of a global address that must be a multiple of 16");
  }
  emulator::this_thread().copy_groups.add([shared, global, bytes] {
    std::memset(shared, 0, 16);
    if (bytes > 0) {
      std::memcpy(shared, global, bytes);
    }
  });
}
inline void cp_async_16(std::uint32_t shared, const void* global) {
  cp_async_16(emulator::shared_pointer(shared), global);
}
inline void cp_async_4(std::uint32_t shared, const void* global) {
  void* const to = emulator::shared_pointer(shared);
  emulator::check_shared(to, 4, 4, "cp.async");
  if (reinterpret_cast<std::uintptr_t>(global) % 4 != 0) {
    emulator::fail("cp.async: 4 bytes of a global address that must be a multiple of 4");
  }
  emulator::this_thread().copy_groups.add([to, global] { std::memcpy(to, global, 4); });
}
inline void cp_async_commit() { emulator::this_thread().copy_groups.commit(); }
template <int kPending>
void cp_async_wait() {
  emulator::this_thread().copy_groups.wait(kPending);
}

inline uint4 load_once_16(const void* global) {
  if (reinterpret_cast<std::uintptr_t>(global) % 16 != 0) {
    emulator::fail("a load of 16 bytes from an address that is not a multiple of 16");
  }
  uint4 v;
  std::memcpy(&v, global, sizeof v);
  return v;
}

inline std::uint32_t load_once_4(const void* global) { return global_load(global); }

inline std::uint16_t to_bfloat16(float value) { return float_to_bfloat16(value); }
inline std::uint16_t to_float16(float value) { return float_to_float16(value); }
inline std::uint32_t pack_bfloat16(float low, float high) {
  return float_to_bfloat16(low) | std::uint32_t{float_to_bfloat16(high)} << 16U;
}
inline std::uint32_t pack_float16(float low, float high) {
  return float_to_float16(low) | std::uint32_t{float_to_float16(high)} << 16U;
}

inline float from_float16(std::uint16_t bits) { return float16_to_float(bits); }

inline void wait_for_predecessor() { emulator::this_thread().waited_for_predecessor = true; }
inline void let_successor_start() {}

inline void named_barrier(std::uint32_t id, std::uint32_t threads) { emulator::named_barrier(id, threads); }
inline void named_barrier_arrive(std::uint32_t id, std::uint32_t threads) {
  emulator::named_barrier(id, threads, /*wait=*/false);
}

inline float max_magnitude(float a, float b) {
  return a != a || b != b ? __uint_as_float(0x7fffffffU) : std::max(std::abs(a), std::abs(b));
}

inline std::int32_t load_acquire(const std::int32_t* global) { return *global; }
inline void spin() { emulator::yield(); }

inline void opaque(int& /*value*/) {}
inline void opaque(std::uint32_t& /*value*/) {}
inline void opaque(const std::uint8_t*& /*value*/) {}

}  // namespace trit::cuda::ptx
