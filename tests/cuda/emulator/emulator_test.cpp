// SPDX-License-Identifier: MIT
//
// The emulator itself: that right kernels run, and that each kind of wrong one is found.
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "cuda/common/launch.cuh"
#include "cuda/common/platform.cuh"
#include "cuda/common/ptx.cuh"
#include "cuda/emulator/guarded_memory.h"
#include "cuda/emulator/mbarrier.h"
#include "cuda/emulator/sanitizer.h"

namespace trit::emulator {
namespace {

class EmulatorTest : public testing::TestWithParam<Policy> {
 protected:
  EmulatorTest() { set_policy(GetParam()); }
  // The message of the Error that running `kernel` ends with; empty if it does not.
  static std::string failure(const Launch& launch, const std::function<void()>& kernel) {
    try {
      run(launch, "kernel", kernel);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Each warp sums its values by shuffles, one thread sums the warps'.
TEST_P(EmulatorTest, SumOfABlock) {
  std::vector<int> sums(6);
  run({.grid = {3, 2}, .block = {96}, .shared_bytes = 12}, "sum", [&] {
    int value = static_cast<int>(threadIdx.x * (blockIdx.x + 1) + blockIdx.y);
    for (int step = 16; step > 0; step /= 2) {
      value += __shfl_xor_sync(0xffffffffU, value, step);
    }
    auto* warps = reinterpret_cast<int*>(shared_memory());
    if (threadIdx.x % 32 == 0) {
      warps[threadIdx.x / 32] = value;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      sums[blockIdx.y * gridDim.x + blockIdx.x] = warps[0] + warps[1] + warps[2];
    }
  });
  EXPECT_EQ(sums, (std::vector<int>{4560, 9120, 13680, 4656, 9216, 13776}));
}

TEST_P(EmulatorTest, WarpFunctions) {
  run({.block = {32}}, "warp", [] {
    const unsigned lane = threadIdx.x;
    EXPECT_EQ(__ballot_sync(0xffffffffU, lane % 3 == 0), 0x49249249U);
    EXPECT_EQ(__reduce_max_sync(0xffffffffU, 100 - lane), 100U);
    EXPECT_EQ(__shfl_down_sync(0xffffffffU, lane, 4), lane < 28 ? lane + 4 : lane);
    EXPECT_EQ(__shfl_sync(0xffffffffU, lane, 9), 9U);
    if (lane < 8) {  // a part of the warp, alone
      EXPECT_EQ(__shfl_xor_sync(0xffU, lane, 1), lane ^ 1U);
    }
    EXPECT_TRUE(__any_sync(0xffffffffU, lane == 31));
    EXPECT_FALSE(__all_sync(0xffffffffU, lane == 31));
  });
}

// d = a b on one warp, with every element of a and b different from its neighbours.
TEST_P(EmulatorTest, MatrixMultiplyAdd) {
  const auto a = [](unsigned row, unsigned k) { return static_cast<int>(row * 31 + k * 7) % 255 - 128; };
  const auto b = [](unsigned k, unsigned column) {
    return static_cast<int>(column * 57 + k * 13) % 255 - 127;
  };
  std::vector<int> d(16 * 8);
  run({.block = {32}, .shared_bytes = 256}, "mma", [&] {
    std::uint8_t* columns = shared_memory();  // b, a column after the other, 32 bytes each
    for (unsigned i = threadIdx.x; i < 256; i += 32) {
      columns[i] = static_cast<std::uint8_t>(b(i % 32, i / 32));
    }
    __syncwarp();
    const unsigned group = threadIdx.x / 4;
    const unsigned c = threadIdx.x % 4;
    std::uint32_t fragment[4] = {};
    for (unsigned r = 0; r < 4; ++r) {
      for (unsigned i = 0; i < 4; ++i) {
        const int value = a(group + 8 * (r % 2), 4 * c + i + 16 * (r / 2));
        fragment[r] |= (static_cast<std::uint32_t>(value) & 0xffU) << (8 * i);
      }
    }
    std::uint32_t halves[4];
    cuda::ptx::ldmatrix_x4(halves, columns + (threadIdx.x % 8) * 32 + (threadIdx.x / 8 % 2) * 16);
    EXPECT_EQ(halves[0], halves[2]);
    std::int32_t sums[4] = {1000, 1000, 1000, 1000};
    cuda::ptx::mma_m16n8k32(sums, fragment, halves[0], halves[1]);
    for (unsigned i = 0; i < 4; ++i) {
      d[(group + 8 * (i / 2)) * 8 + 2 * c + i % 2] = sums[i];
    }
  });
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 8; ++column) {
      int wanted = 1000;
      for (unsigned k = 0; k < 32; ++k) {
        wanted += a(row, k) * b(k, column);
      }
      EXPECT_EQ(d[row * 8 + column], wanted) << row << ' ' << column;
    }
  }
}

TEST_P(EmulatorTest, Divergence) {
  const std::string message = failure({.block = {32}}, [] {
    if (threadIdx.x < 31) {
      __syncwarp();
    } else {
      __shfl_sync(0xffffffffU, 1, 0);
    }
  });
  EXPECT_TRUE(contains(message, "divergence") && contains(message, "__syncwarp")) << message;
  // Lane 5 is gone before the others come, or is the one that they wait for, or leaves after them.
  const std::string gone = failure({.block = {32}}, [] {
    if (threadIdx.x != 5) {
      __syncwarp();
    }
  });
  EXPECT_TRUE(contains(gone, "lane 5 of the mask has left") || contains(gone, "deadlock")) << gone;
}

TEST_P(EmulatorTest, Deadlock) {
  const std::string message = failure({.block = {64}, .shared_bytes = 8}, [] {
    auto* barrier = reinterpret_cast<std::uint64_t*>(shared_memory());
    if (threadIdx.x == 0) {
      barrier_init(barrier, 2);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      if (threadIdx.x == 7) {
        barrier_arrive(barrier);
      }
      barrier_wait(barrier, 0);
    } else {
      named_barrier(3, 64);
    }
  });
  EXPECT_TRUE(contains(message, "deadlock")) << message;
  EXPECT_TRUE(contains(message, "32 for phase 0 of the mbarrier")) << message;
  EXPECT_TRUE(contains(message, "32 for barrier 3 of 64 threads")) << message;
}

TEST_P(EmulatorTest, SharedMemoryEnds) {
  EXPECT_TRUE(contains(failure({.block = {32}, .shared_bytes = 64},
                               [] {
                                 std::uint32_t r[4];
                                 cuda::ptx::ldmatrix_x4(r, shared_memory() + 16 * (threadIdx.x % 5));
                               }),
                       "ldmatrix: bytes 64 to 80 of shared memory, which has 64"));
  EXPECT_TRUE(contains(failure({.block = {1}, .shared_bytes = 64},
                               [] { cuda::ptx::cp_async_16(shared_memory() + 8, shared_memory()); }),
                       "shared offset 8 is not a multiple of 16"));
#if !defined(TRIT_EMULATOR_ASAN)
  EXPECT_TRUE(contains(failure({.block = {1}, .shared_bytes = 60}, [] { shared_memory()[60] = 1; }),
                       "wrote outside its 60 bytes of shared memory"));
#endif
}

// 5000 bytes end 120 bytes before a page that faults; under AddressSanitizer the first byte past them is an
// error already.
TEST(EmulatorDeathTest, SharedMemoryFaults) {
  EXPECT_DEATH(run({.block = {4}, .shared_bytes = 4096}, "faulty",
                   [] {
                     if (threadIdx.x == 2) {
                       static_cast<volatile std::uint8_t*>(shared_memory())[4096] = 1;
                     }
                   }),
               "faulty: block \\(0,0,0\\), thread 2.*shared memory \\+4096 of 4096 bytes|AddressSanitizer");
}

// What is read before the wait is not what was copied.
TEST_P(EmulatorTest, MissingWait) {
  alignas(16) static const std::uint32_t source[4] = {1, 2, 3, 4};
  std::uint32_t before = 0;
  std::uint32_t after = 0;
  run({.block = {1}, .shared_bytes = 16}, "copy", [&] {
    const auto* target = reinterpret_cast<const std::uint32_t*>(shared_memory());
    cuda::ptx::cp_async_16(shared_memory(), source);
    cuda::ptx::cp_async_commit();
    cuda::ptx::cp_async_wait<1>();
    before = target[1];
    cuda::ptx::cp_async_wait<0>();
    after = target[1];
  });
  EXPECT_EQ(before == 2, GetParam().copies == Copies::early);
  EXPECT_EQ(after, 2U);
  if (GetParam().copies == Copies::late) {
    EXPECT_TRUE(contains(failure({.block = {1}, .shared_bytes = 16},
                                 [] {
                                   cuda::ptx::cp_async_16(shared_memory(), source);
                                   cuda::ptx::cp_async_commit();
                                 }),
                         "copies that it has not waited for"));
  }
}

// One thread copies, all wait for the bytes, twice: the parity of the phase changes.
TEST_P(EmulatorTest, MemoryBarriers) {
  std::vector<int> seen;
  run({.block = {64}, .shared_bytes = 16}, "bytes", [&] {
    auto* barrier = reinterpret_cast<std::uint64_t*>(shared_memory());
    std::uint8_t* data = shared_memory() + 8;
    if (threadIdx.x == 0) {
      barrier_init(barrier, 1);
    }
    __syncthreads();
    for (unsigned round = 0; round < 3; ++round) {
      if (threadIdx.x == 0) {
        start_barrier_copy(barrier, 1, [data, round] { *data = static_cast<std::uint8_t>(round + 10); });
        barrier_arrive_expect_bytes(barrier, 1);
      }
      barrier_wait(barrier, round % 2);
      if (threadIdx.x == 63) {
        seen.push_back(*data);
      }
      __syncthreads();
    }
  });
  EXPECT_EQ(seen, (std::vector<int>{10, 11, 12}));
  EXPECT_TRUE(contains(failure({.block = {1}, .shared_bytes = 16},
                               [] { barrier_arrive(reinterpret_cast<std::uint64_t*>(shared_memory())); }),
                       "is not initialised"));
  EXPECT_TRUE(contains(failure({.block = {1}, .shared_bytes = 16},
                               [] {
                                 auto* barrier = reinterpret_cast<std::uint64_t*>(shared_memory());
                                 barrier_init(barrier, 1);
                                 shared_memory()[3] ^= 1;
                                 barrier_arrive(barrier);
                               }),
                       "was overwritten"));
  EXPECT_TRUE(contains(failure({.block = {1}, .shared_bytes = 16},
                               [] {
                                 auto* barrier = reinterpret_cast<std::uint64_t*>(shared_memory());
                                 barrier_init(barrier, 2);
                                 barrier_expect_bytes(barrier, 5);
                               }),
                       "still expects 5 bytes"));
}

// Two blocks of a cluster write into each other's shared memory.
TEST_P(EmulatorTest, Clusters) {
  std::vector<unsigned> seen(4);
  run({.grid = {4}, .block = {32}, .shared_bytes = 16, .cluster = 2}, "cluster", [&] {
    auto* mine = reinterpret_cast<unsigned*>(shared_memory());
    cluster_arrive();
    cluster_wait();
    if (threadIdx.x == 0) {
      *static_cast<unsigned*>(map_to_rank(mine, cluster_rank() ^ 1U)) = blockIdx.x;
    }
    cluster_arrive();
    cluster_wait();
    if (threadIdx.x == 31) {
      seen[blockIdx.x] = *mine;
    }
  });
  EXPECT_EQ(seen, (std::vector<unsigned>{1, 0, 3, 2}));
}

TEST_P(EmulatorTest, SpinLoopsAndNamedBarriers) {
  int flag = 0;
  run({.block = {128}}, "spin", [&] {
    if (threadIdx.x < 64) {
      while (flag == 0) {
        yield();
      }
      named_barrier(1, 64);
    } else if (threadIdx.x == 64) {
      named_barrier(2, 64, false);  // arrives and goes on
      flag = 1;
    } else if (threadIdx.x >= 65) {
      named_barrier(2, 64);
    }
  });
  EXPECT_TRUE(contains(failure({.block = {32}},
                               [] {
                                 for (;;) yield();
                               }),
                       "deadlock"));
}

TEST_P(EmulatorTest, ProgrammaticLaunch) {
  EXPECT_TRUE(contains(failure({.programmatic = true}, [] {}), "never waits for it"));
  EXPECT_EQ(failure({.programmatic = true}, [] { cuda::ptx::wait_for_predecessor(); }), "");
}

TEST_P(EmulatorTest, ImpossibleLaunches) {
  EXPECT_TRUE(contains(failure({.block = {1025}}, [] {}), "cannot launch"));
  EXPECT_TRUE(contains(failure({.grid = {1, 1, 65536}, .block = {1}}, [] {}), "cannot launch"));
  EXPECT_TRUE(contains(failure({.grid = {3}, .block = {1}, .cluster = 2}, [] {}), "cannot launch"));
}

INSTANTIATE_TEST_SUITE_P(Policies, EmulatorTest,
                         testing::ValuesIn(all_policies().begin(), all_policies().end()),
                         [](const auto& policy) { return "policy" + std::to_string(policy.param.seed); });

}  // namespace
}  // namespace trit::emulator
