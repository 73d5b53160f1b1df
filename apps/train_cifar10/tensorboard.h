// SPDX-License-Identifier: MIT
//
// Scalars for TensorBoard, written as its event files are:
//   record = u64le length, u32le mask(crc32c(length's bytes)), data, u32le mask(crc32c(data))
//   mask(c) = ((c >> 15) | (c << 17)) + 0xa282ead8 mod 2^32
//   data   = protobuf Event { 1 double wall_time; 2 int64 step; 3 string file_version | 5 Summary | 7
//   SessionLog }
// Records are handed to the operating system one by one; a reader stops at one that was cut off by a crash.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

namespace trit::train {

class EventFile {
 public:
  /// A new file in `folder`. With first_step > 0, what earlier files of the folder say of that step and later
  /// ones is taken back (TensorBoard's purge of a session that starts again).
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);

  struct Scalar {
    std::string_view tag;
    double value;
  };
  /// One event with some scalars. A disk that is full costs the events, never the training.
  void add(std::int64_t step, std::span<const Scalar> scalars);

  const std::filesystem::path& path() const { return path_; }

 private:
  void write_record(std::string_view data);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace trit::train
