// SPDX-License-Identifier: MIT
#include "train_cifar10/caching_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

namespace trit::train {
namespace {

constexpr std::size_t kMinCached = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

class CachingAllocator final : public c10::Allocator {
 public:
  explicit CachingAllocator(c10::Allocator& small) : small_(small) {}

  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes < kMinCached) {
      return small_.allocate(bytes);
    }
    void* const data = take((bytes + kHugePage - 1) / kHugePage * kHugePage);
    return {data, data, &give_back, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  static CachingAllocator& instance() {
    // Never destroyed: tensors in static variables may outlive it.
    static auto* const allocator =
        new CachingAllocator(*c10::GetDefaultCPUAllocator());  // NOLINT(*-owning-memory)
    return *allocator;
  }

 private:
  /// A block of `bytes` or up to a quarter more: a cached one, or a new one from the system.
  void* take(std::size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = cached_.lower_bound(bytes);
      if (found != cached_.end() && found->first <= bytes + bytes / 4) {
        void* const data = found->second;
        cached_.erase(found);
        return data;
      }
    }
    void* const data = std::aligned_alloc(kHugePage, bytes);
    if (data == nullptr) {
      throw std::bad_alloc();
    }
    static_cast<void>(madvise(data, bytes, MADV_HUGEPAGE));  // falls back to small pages
    const std::lock_guard lock(mutex_);
    bytes_of_.emplace(data, bytes);
    return data;
  }

  static void give_back(void* data) {
    CachingAllocator& allocator = instance();
    {
      const std::lock_guard lock(allocator.mutex_);
      const auto found = allocator.bytes_of_.find(data);
      if (found != allocator.bytes_of_.end()) {
        allocator.cached_.emplace(found->second, data);
        return;
      }
    }
    allocator.small_.raw_deleter()(data);
  }

  c10::Allocator& small_;
  std::mutex mutex_;
  std::multimap<std::size_t, void*> cached_;  // by size in bytes
  std::unordered_map<void*, std::size_t> bytes_of_;
};

}  // namespace

void install_caching_allocator() { c10::SetCPUAllocator(&CachingAllocator::instance(), /*priority=*/1); }

}  // namespace trit::train
