// SPDX-License-Identifier: MIT
//
// A vector that starts on a cache line, as tensors of LibTorch and of the runtime do: timings of kernels on
// memory that is aligned to 16 bytes would count a second line for every 64-byte access.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace trit::bench {

template <typename Value>
struct CacheLineAllocator {
  using value_type = Value;
  CacheLineAllocator() = default;
  // Implicit, since allocators of other types must convert to this one.
  template <typename Other>
  CacheLineAllocator(const CacheLineAllocator<Other>& /*other*/) {}  // NOLINT(google-explicit-constructor)

  static constexpr std::align_val_t kAlignment{64};
  Value* allocate(std::size_t count) {
    return static_cast<Value*>(::operator new(count * sizeof(Value), kAlignment));
  }
  void deallocate(Value* memory, std::size_t /*count*/) { ::operator delete(memory, kAlignment); }
  bool operator==(const CacheLineAllocator& /*other*/) const { return true; }
};

template <typename Value>
using AlignedVector = std::vector<Value, CacheLineAllocator<Value>>;

}  // namespace trit::bench
