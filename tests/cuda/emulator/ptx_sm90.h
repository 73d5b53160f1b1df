// SPDX-License-Identifier: MIT
//
// The instructions of src/cuda/common/ptx_sm90.cuh on the CPU, after the PTX manual.
//
// What is asynchronous on the GPU happens as late as it may here; when copies land is the emulator's policy.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/common/tensor_map.cuh"
#include "cuda/emulator/device.h"
#include "cuda/emulator/mbarrier.h"
#include "cuda/emulator/sm90_state.h"

namespace trit::cuda::ptx {

namespace detail {

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

template <int kRegisters>
void registers_decrease() {
  emulator::collective(emulator::Group::warpgroup, 0, "setmaxnreg.dec", nullptr, [](auto) {});
}
template <int kRegisters>
void registers_increase() {
  emulator::collective(emulator::Group::warpgroup, 0, "setmaxnreg.inc", nullptr, [](auto) {});
}

}  // namespace trit::cuda::ptx
