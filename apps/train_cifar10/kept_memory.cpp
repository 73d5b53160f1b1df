// SPDX-License-Identifier: MIT
#include "train_cifar10/kept_memory.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

namespace trit::train {
namespace {

constexpr std::size_t kSmallest = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

class KeptMemory final : public c10::Allocator {
 public:
  explicit KeptMemory(c10::Allocator& small) : small_(small) {}

  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes < kSmallest) {
      return small_.allocate(bytes);
    }
    void* const data = take((bytes + kHugePage - 1) / kHugePage * kHugePage);
    return {data, data, &give_back, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  static KeptMemory& instance() {
    // Never destroyed: tensors in static variables outlive it otherwise.
    static auto* const memory = new KeptMemory(*c10::GetDefaultCPUAllocator());  // NOLINT(*-owning-memory)
    return *memory;
  }

 private:
  /// A block of `bytes` or somewhat more, from those that tensors have left or from the system.
  void* take(std::size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = left_.lower_bound(bytes);
      if (found != left_.end() && found->first <= bytes + bytes / 4) {
        void* const data = found->second;
        left_.erase(found);
        return data;
      }
    }
    void* const data = std::aligned_alloc(kHugePage, bytes);
    if (data == nullptr) {
      throw std::bad_alloc();
    }
    static_cast<void>(madvise(data, bytes, MADV_HUGEPAGE));  // where it is refused, small pages
    const std::lock_guard lock(mutex_);
    bytes_of_.emplace(data, bytes);
    return data;
  }

  static void give_back(void* data) {
    KeptMemory& memory = instance();
    {
      const std::lock_guard lock(memory.mutex_);
      const auto found = memory.bytes_of_.find(data);
      if (found != memory.bytes_of_.end()) {
        memory.left_.emplace(found->second, data);
        return;
      }
    }
    memory.small_.raw_deleter()(data);
  }

  c10::Allocator& small_;
  std::mutex mutex_;
  std::multimap<std::size_t, void*> left_;
  std::unordered_map<void*, std::size_t> bytes_of_;
};

}  // namespace

void keep_tensor_memory() { c10::SetCPUAllocator(&KeptMemory::instance(), /*priority=*/1); }

}  // namespace trit::train
