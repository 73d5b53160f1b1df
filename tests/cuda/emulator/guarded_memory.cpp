// SPDX-License-Identifier: MIT
#include "cuda/emulator/guarded_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "cuda/emulator/sanitizer.h"

#if defined(TRIT_EMULATOR_ASAN)
#include <sanitizer/asan_interface.h>
#define TRIT_POISON(begin, bytes) __asan_poison_memory_region(begin, bytes)
#define TRIT_UNPOISON(begin, bytes) __asan_unpoison_memory_region(begin, bytes)
#else
#define TRIT_POISON(begin, bytes) static_cast<void>(0)
#define TRIT_UNPOISON(begin, bytes) static_cast<void>(0)
#endif

namespace trit::emulator {
namespace {

constexpr std::uint8_t kCanary = 0xc5;

std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

GuardedMemory::GuardedMemory(std::size_t bytes, std::size_t alignment, std::uint64_t seed) : bytes_(bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t inner = round_up(std::max<std::size_t>(bytes, 1), page);
  mapping_bytes_ = inner + 2 * page;
  void* mapping = mmap(nullptr, mapping_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED ||
      mprotect(static_cast<std::uint8_t*>(mapping) + page, inner, PROT_READ | PROT_WRITE) != 0) {
    throw std::system_error(errno, std::generic_category(),
                            "guarded memory of " + std::to_string(bytes) + " bytes");
  }
  mapping_ = static_cast<std::uint8_t*>(mapping);
  std::uint8_t* end = mapping_ + page + inner;
  data_ = end - round_up(bytes, alignment);
  std::memset(mapping_ + page, kCanary, inner);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15U + 1;
  for (std::size_t i = 0; i < bytes; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    data_[i] = static_cast<std::uint8_t>(state >> 56);
  }
  TRIT_POISON(mapping_ + page, static_cast<std::size_t>(data_ - (mapping_ + page)));
  TRIT_POISON(data_ + bytes_, static_cast<std::size_t>(end - (data_ + bytes_)));
}

GuardedMemory::~GuardedMemory() {
  if (mapping_ != nullptr) {
    TRIT_UNPOISON(mapping_, mapping_bytes_);
    munmap(mapping_, mapping_bytes_);
  }
}

GuardedMemory::GuardedMemory(GuardedMemory&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_bytes_(other.mapping_bytes_),
      data_(other.data_),
      bytes_(other.bytes_) {}

bool GuardedMemory::intact() const {
#if defined(TRIT_EMULATOR_ASAN)
  return true;  // it has looked at each access
#else
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const auto is_canary = [](std::uint8_t byte) { return byte == kCanary; };
  return std::all_of(mapping_ + page, data_, is_canary) &&
         std::all_of(data_ + bytes_, mapping_ + mapping_bytes_ - page, is_canary);
#endif
}

}  // namespace trit::emulator
