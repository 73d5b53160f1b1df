// SPDX-License-Identifier: MIT
#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

#include "base/file_descriptor.h"
#include "trit/error.h"

namespace trit::io {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, int error) {
  throw Error(path.string() + ": cannot be read: " + std::generic_category().message(error));
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe without a writer returns instead of waiting, and is refused below.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    fail(path, errno);
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) {
    fail(path, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(path.string() + ": is a " + (S_ISDIR(status.st_mode) ? "folder" : "device, pipe or socket") +
                ", wanted a regular file");
  }
  if (status.st_size == 0) {
    return;
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) {
    fail(path, errno);
  }
  data_ = static_cast<const std::byte*>(data);
  size_ = size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(const_cast<std::byte*>(data_), size_);
  }
}

void release_pages(std::span<const std::byte> bytes) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::size_t before = (page - address % page) % page;   // of the first page that is whole
  const std::size_t behind = (address + bytes.size()) % page;  // of the last one
  if (before + behind < bytes.size()) {
    ::madvise(const_cast<std::byte*>(bytes.data()) + before, bytes.size() - before - behind, MADV_DONTNEED);
  }
}

}  // namespace trit::io
