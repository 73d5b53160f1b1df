// SPDX-License-Identifier: MIT
//
// Scalars for TensorBoard, written as its event files are:
//   record = u64le length, u32le mask(crc32c(length's bytes)), data, u32le mask(crc32c(data))
//   mask(c) = ((c >> 15) | (c << 17)) + 0xa282ead8 mod 2^32
//   data   = protobuf Event { 1 double wall_time; 2 int64 step;
//                             3 string file_version | 5 Summary | 7 SessionLog }
// Records are flushed one by one; a reader stops at one that a crash cut off.
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
  /// A new file in `folder`. With first_step > 0 it revokes the events of earlier files from that step on
  /// (TensorBoard's purge for a restarted session).
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);

  struct Scalar {
    std::string_view tag;
    double value;
  };
  /// One event with some scalars. A full disk loses events but does not stop the training.
  void add(std::int64_t step, std::span<const Scalar> scalars);

  const std::filesystem::path& path() const { return path_; }

 private:
  void write_record(std::string_view data);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace trit::train
