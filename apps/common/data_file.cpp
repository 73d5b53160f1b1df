// SPDX-License-Identifier: MIT
//
// Files of known sizes, with errors that name the file and the offset.
#include <string>
#include <system_error>

#include "common/dataset_readers.h"
#include "trit/error.h"

namespace trit::apps {
namespace fs = std::filesystem;

DataFile::DataFile(const fs::path& path, std::uint64_t size) : path_(path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw Error(path.string() + ": no such file");
  }
  if (!fs::is_regular_file(status)) {
    throw Error(path.string() + ": not a regular file");
  }
  const std::uint64_t found = fs::file_size(path, error);
  if (error) {
    throw Error(path.string() + ": " + error.message());
  }
  if (found != size) {
    fail(std::to_string(found) + " bytes, wanted " + std::to_string(size) +
             (found < size ? ": the file ends" : ": the file should end"),
         std::min(found, size));
  }
  stream_.open(path, std::ios::binary);
  if (!stream_) {
    throw Error(path.string() + ": cannot be opened for reading");
  }
}

void DataFile::read(std::span<std::uint8_t> bytes) {
  stream_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  const auto got = static_cast<std::uint64_t>(stream_.gcount());
  if (got != bytes.size()) {
    fail("reading " + std::to_string(bytes.size()) + " bytes gave " + std::to_string(got), offset_);
  }
  offset_ += got;
}

void DataFile::fail(const std::string& what, std::uint64_t offset) const {
  throw Error(path_.string() + ": " + what + " at offset " + std::to_string(offset));
}

fs::path find_data_folder(const fs::path& folder, const std::string& inner, const std::string& file) {
  std::error_code error;
  if (folder.empty()) {
    throw Error("no data folder was given");
  }
  if (!fs::is_directory(folder, error)) {
    throw Error(folder.string() + ": no such folder");
  }
  for (const fs::path& candidate : {folder, folder / inner}) {
    if (fs::exists(candidate / file, error)) {
      return candidate;
    }
  }
  throw Error(folder.string() + ": holds neither " + file + " nor " + inner + "/" + file);
}

}  // namespace trit::apps
