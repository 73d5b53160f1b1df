// SPDX-License-Identifier: MIT
//
// The instructions of src/cuda/ptx_sm90.cuh on the CPU, after the PTX manual.
//
// What is asynchronous on the GPU happens as late as it may here: a wgmma at the wait that ends its group,
// with the registers and the shared memory of that moment. So an A register that is unpacked again, or a
// stage that is given back, too early gives wrong sums. When copies land is the emulator's policy.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cuda/common/tensor_map.cuh"
#include "cuda/emulator/device.h"
#include "cuda/emulator/mbarrier.h"
#include "trit/format.h"

namespace trit::cuda::ptx {

namespace detail {

// An address in the window of the cluster: rank + 1 above 24 bits of the block's own window.
constexpr unsigned kRankShift = 24;

inline std::uint8_t* cluster_pointer(std::uint32_t address) {
  const std::uint32_t rank = address >> kRankShift;
  std::uint8_t* const own = emulator::shared_pointer(address & ((1U << kRankShift) - 1U));
  return rank == 0 ? own : static_cast<std::uint8_t*>(emulator::map_to_rank(own, rank - 1));
}
inline std::uint64_t* barrier_pointer(std::uint32_t address) {
  return reinterpret_cast<std::uint64_t*>(cluster_pointer(address));
}

// The 128-byte swizzle: address bits 4-6 are xored with bits 7-9.
constexpr std::uint32_t swizzled(std::uint32_t address) { return address ^ ((address >> 3U) & 0x70U); }

inline void check_address(std::uint32_t address, std::size_t bytes, std::size_t alignment, const char* name) {
  emulator::check_shared(cluster_pointer(address), bytes, alignment, name);
}

inline std::uint8_t* box_row(std::uint32_t box, std::int32_t row, std::uint32_t chunk) {
  return emulator::shared_pointer(swizzled(box + static_cast<std::uint32_t>(row) * 128 + chunk * 16));
}

enum class WgmmaType : std::uint8_t { int8, bfloat16, float16 };

// One thread's wgmma: registers by reference, since the hardware reads them when it gets there.
struct Wgmma {
  std::int32_t* d;
  const std::uint32_t* a;
  std::uint64_t b;
  std::int32_t tokens;
  bool accumulate;
  WgmmaType type = WgmmaType::int8;
};
struct WgmmaGroups {
  std::vector<Wgmma> open;
  std::vector<std::vector<Wgmma>> committed;  // the oldest first
  bool fenced = false;
};
struct ThreadState {
  WgmmaGroups wgmma;
  bool cluster_waited = false;
};
inline ThreadState& thread_state() {
  std::shared_ptr<void>& state = emulator::this_thread().sm90;
  if (state == nullptr) {
    state = std::make_shared<ThreadState>();
  }
  return *static_cast<ThreadState*>(state.get());
}
inline WgmmaGroups& wgmma_groups() { return thread_state().wgmma; }

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

inline void warp_collective(const char* name) {
  emulator::collective(emulator::Group::warp, 0xffffffffU, name, nullptr, [](auto) {});
}

}  // namespace detail

// ---- mbarriers ----

inline void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) {
  emulator::barrier_init(detail::barrier_pointer(barrier), arrivals);
}
inline void fence_barrier_init() {}
inline void barrier_arrive(std::uint32_t barrier) {
  emulator::barrier_arrive(detail::barrier_pointer(barrier));
}
inline void barrier_arrive_expect(std::uint32_t barrier, std::uint32_t bytes) {
  emulator::barrier_arrive_expect_bytes(detail::barrier_pointer(barrier), bytes);
}
inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  emulator::barrier_wait(detail::barrier_pointer(barrier), parity);
}

// ---- the copy engine ----

inline void fence_async_proxy() {}

inline void bulk_load(std::uint32_t destination, const void* source, std::uint32_t bytes,
                      std::uint32_t barrier) {
  if (bytes == 0 || bytes % 16 != 0 || reinterpret_cast<std::uintptr_t>(source) % 16 != 0) {
    emulator::fail("cp.async.bulk: " + std::to_string(bytes) +
                   " bytes; size and global address must be multiples of 16");
  }
  detail::check_address(destination, bytes, 16, "cp.async.bulk");
  std::uint8_t* const target = detail::cluster_pointer(destination);
  emulator::start_barrier_copy(detail::barrier_pointer(barrier), bytes,
                               [target, source, bytes] { std::memcpy(target, source, bytes); });
}

inline void tensor_load(std::uint32_t destination, const TensorMap* map, std::int32_t x, std::int32_t y,
                        std::uint32_t barrier) {
  const auto bytes = static_cast<std::uint32_t>(map->box_rows) * 128;
  detail::check_address(destination, bytes, 1024, "cp.async.bulk.tensor");
  std::vector<std::uint8_t*> chunks;  // addresses are this block's: found now, written later
  for (std::int32_t row = 0; row < map->box_rows; ++row) {
    for (std::uint32_t chunk = 0; chunk < 8; ++chunk) {
      chunks.push_back(detail::box_row(destination, row, chunk));
    }
  }
  emulator::start_barrier_copy(
      detail::barrier_pointer(barrier), bytes, [matrix = *map, x, y, chunks = std::move(chunks)] {
        for (std::int32_t row = 0; row < matrix.box_rows; ++row) {
          for (std::int32_t i = 0; i < 128; ++i) {
            const std::int64_t from = std::int64_t{x} * matrix.element_bytes + i;
            const bool inside = y + row >= 0 && y + row < matrix.rows && from >= 0 &&
                                from < matrix.row_elements * matrix.element_bytes;
            const auto* data = static_cast<const std::uint8_t*>(matrix.data);
            chunks[static_cast<std::size_t>(row * 8 + i / 16)][i % 16] =
                inside ? data[(y + row) * matrix.stride_bytes + from] : std::uint8_t{0};
          }
        }
      });
}

inline void tensor_store(const TensorMap* map, std::int32_t x, std::int32_t y, std::uint32_t source) {
  detail::check_address(source, static_cast<std::size_t>(map->box_rows) * 128, 1024,
                        "cp.async.bulk.tensor store");
  std::vector<const std::uint8_t*> chunks;
  for (std::int32_t row = 0; row < map->box_rows; ++row) {
    for (std::uint32_t chunk = 0; chunk < 8; ++chunk) {
      chunks.push_back(detail::box_row(source, row, chunk));
    }
  }
  emulator::this_thread().bulk_groups.add([matrix = *map, x, y, chunks = std::move(chunks)] {
    auto* data = static_cast<std::uint8_t*>(const_cast<void*>(matrix.data));
    for (std::int32_t row = 0; row < matrix.box_rows; ++row) {
      for (std::int32_t i = 0; i < 128; ++i) {
        const std::int64_t to = std::int64_t{x} * matrix.element_bytes + i;
        // The engine writes whole units: a row that does not end on one gets more.
        const std::int64_t row_bytes = (matrix.row_elements * matrix.element_bytes + 15) / 16 * 16;
        if (y + row < matrix.rows && to < row_bytes) {
          data[(y + row) * matrix.stride_bytes + to] =
              chunks[static_cast<std::size_t>(row * 8 + i / 16)][i % 16];
        }
      }
    }
  });
}

inline void store_commit() { emulator::this_thread().bulk_groups.commit(); }
inline void store_wait_read() { emulator::this_thread().bulk_groups.wait(0); }
inline void store_wait() { emulator::this_thread().bulk_groups.wait(0); }
inline void prefetch_tensor_map(const TensorMap* /*map*/) {}

// ---- clusters ----

inline std::uint32_t cluster_rank() { return emulator::cluster_rank(); }
inline std::uint32_t cluster_index() { return blockIdx.x / emulator::this_launch().cluster; }
inline void cluster_arrive() {
  detail::warp_collective("barrier.cluster.arrive");
  emulator::cluster_arrive();
}
inline void cluster_wait() {
  detail::warp_collective("barrier.cluster.wait");
  emulator::cluster_wait();
  detail::thread_state().cluster_waited = true;
}
inline std::uint32_t cluster_address(std::uint32_t address, std::uint32_t rank) {
  static_cast<void>(
      emulator::map_to_rank(emulator::shared_pointer(address), rank));  // it fails where there is none
  return address | (rank + 1) << detail::kRankShift;
}
/// The kernels' warps do it together, so a warp's stores are one copy here: thousands would take minutes to
/// complete.
inline void cluster_store(std::uint32_t address, const std::int32_t (&values)[4], std::uint32_t barrier) {
  struct Store {
    std::uint8_t* target;
    std::array<std::int32_t, 4> values;
    std::uint64_t* barrier;
  } store{detail::cluster_pointer(address),
          {values[0], values[1], values[2], values[3]},
          detail::barrier_pointer(barrier)};
  detail::check_address(address, 16, 16, "st.async");
  if (!detail::thread_state().cluster_waited) {
    emulator::fail("st.async before barrier.cluster.wait: the other block may not have made its barrier yet");
  }
  if (emulator::this_launch().cluster < 2) {
    emulator::fail("st.async: the launch has no cluster");
  }
  if (address >> detail::kRankShift != barrier >> detail::kRankShift) {
    emulator::fail("st.async: the data and the barrier are in different blocks");
  }
  emulator::collective(emulator::Group::warp, 0xffffffffU, "st.async", &store,
                       [](std::span<void* const> lanes) {
                         std::vector<Store> stores;
                         for (void* const lane : lanes) {
                           stores.push_back(*static_cast<const Store*>(lane));
                           if (stores.back().barrier != stores.front().barrier) {
                             emulator::fail("st.async: the lanes of a warp count on different barriers");
                           }
                         }
                         std::uint64_t* const counter = stores.front().barrier;
                         emulator::start_barrier_copy(counter, 32 * 16, [stores = std::move(stores)] {
                           for (const Store& one : stores) {
                             std::memcpy(one.target, one.values.data(), 16);
                           }
                         });
                       });
}

// ---- wgmma ----

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

// ---- the rest ----

inline void shared_store(std::uint32_t address, const std::int32_t (&values)[4]) {
  detail::check_address(address, 16, 16, "st.shared.v4");
  std::memcpy(emulator::shared_pointer(address), values, sizeof values);
}

inline void store_transposed(std::uint32_t address, const std::uint32_t (&matrices)[4]) {
  struct Args {
    std::uint8_t* row;
    const std::uint32_t* matrices;
  } args{emulator::shared_pointer(address), matrices};
  detail::check_address(address, 16, 16, "stmatrix");
  emulator::collective(
      emulator::Group::warp, 0xffffffffU, "stmatrix.x4.trans", &args, [](std::span<void* const> lanes) {
        for (unsigned lane = 0; lane < 32; ++lane) {
          for (unsigned m = 0; m < 4; ++m) {
            for (unsigned i = 0; i < 2; ++i) {
              // Matrix element [lane / 4][2 (lane % 4) + i] goes to element lane / 4 of the stored row of its
              // column.
              const auto* to = static_cast<const Args*>(lanes[8 * m + 2 * (lane % 4) + i]);
              const auto element =
                  static_cast<std::uint16_t>(static_cast<const Args*>(lanes[lane])->matrices[m] >> (16 * i));
              std::memcpy(to->row + 2 * (lane / 4), &element, 2);
            }
          }
        }
      });
}

inline std::uint32_t pack_bfloat16(float low, float high) {
  return float_to_bfloat16(low) | std::uint32_t{float_to_bfloat16(high)} << 16U;
}
inline std::uint32_t pack_float16(float low, float high) {
  return float_to_float16(low) | std::uint32_t{float_to_float16(high)} << 16U;
}

template <int kRegisters>
void registers_decrease() {
  emulator::collective(emulator::Group::warpgroup, 0, "setmaxnreg.dec", nullptr, [](auto) {});
}
template <int kRegisters>
void registers_increase() {
  emulator::collective(emulator::Group::warpgroup, 0, "setmaxnreg.inc", nullptr, [](auto) {});
}

}  // namespace trit::cuda::ptx
