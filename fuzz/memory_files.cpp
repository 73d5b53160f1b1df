// SPDX-License-Identifier: MIT
//
// Takes the place of src/io/mapped_file.cpp.
#include "memory_files.h"

#include <cstring>
#include <map>
#include <memory>

#include "io/mapped_file.h"
#include "trit/error.h"

namespace trit {
namespace {

struct File {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;
};

std::map<std::string, File, std::less<>>& files() {
  static std::map<std::string, File, std::less<>> all;
  return all;
}

}  // namespace

void fuzz::set_file(const std::string& path, std::span<const std::uint8_t> bytes) {
  File& file = files()[path];
  file.bytes = std::make_unique_for_overwrite<std::byte[]>(bytes.size());
  file.size = bytes.size();
  if (!bytes.empty()) {
    std::memcpy(file.bytes.get(), bytes.data(), bytes.size());
  }
}

io::MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto found = files().find(path.native());
  if (found == files().end()) {
    throw Error(path.string() + ": cannot be read: No such file");
  }
  data_ = found->second.bytes.get();
  size_ = found->second.size;
}

io::MappedFile::~MappedFile() = default;

void io::release_pages(std::span<const std::byte>) {}

}  // namespace trit
