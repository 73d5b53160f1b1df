// SPDX-License-Identifier: MIT
//
// Large tensors: their memory is reused, starts on a huge page, and is freed through either interface.
#include "train_cifar10/caching_allocator.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdint>
#include <thread>
#include <vector>

namespace trit::train {
namespace {

TEST(CachingAllocator, ReusesTheMemoryOfAFreedTensor) {
  install_caching_allocator();
  constexpr std::int64_t kCount = 3 << 20;  // 12 MiB
  torch::Tensor first = torch::ones({kCount});
  const void* const data = first.data_ptr();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % (std::uintptr_t{2} << 20), 0U);
  const torch::Tensor while_in_use = torch::full({kCount}, 2.0F);
  EXPECT_NE(while_in_use.data_ptr(), data);
  EXPECT_EQ(first.sum().item<double>(), kCount);
  first.reset();
  const torch::Tensor second = torch::full({kCount - 1000}, 3.0F);
  EXPECT_EQ(second.data_ptr(), data);
  EXPECT_EQ(while_in_use.min().item<float>(), 2.0F);
  const torch::Tensor much_smaller = torch::ones({kCount / 8});
  EXPECT_EQ(much_smaller.sum().item<double>(), kCount / 8);
}

TEST(CachingAllocator, RawAllocations) {
  install_caching_allocator();
  c10::Allocator& allocator = *c10::GetAllocator(c10::kCPU);
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, (std::size_t{1} << 20) - 1,
                                  std::size_t{1} << 20, (std::size_t{2} << 20) + 1}) {
    void* const data = allocator.raw_allocate(bytes);
    if (bytes > 0) {
      auto* const text = static_cast<char*>(data);
      text[0] = 1;
      text[bytes - 1] = 1;
    }
    allocator.raw_deallocate(data);
  }
}

TEST(CachingAllocator, IsThreadSafe) {
  install_caching_allocator();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([thread] {
      for (int round = 0; round < 50; ++round) {
        const torch::Tensor own = torch::full({(1 + round % 3) << 18}, static_cast<float>(thread));
        EXPECT_EQ(own.min().item<float>(), static_cast<float>(thread));
        EXPECT_EQ(own.max().item<float>(), static_cast<float>(thread));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace trit::train
