// SPDX-License-Identifier: MIT
#include "train_cifar10/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstring>

#include "trit/crc32c.h"
#include "trit/error.h"

namespace trit::train {
namespace {

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Protobuf: a key is (field << 3) | wire type; 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
template <typename Bits>
void put_fixed(std::string& out, Bits bits) {
  std::array<char, sizeof(Bits)> bytes;
  std::memcpy(bytes.data(), &bits, sizeof(Bits));
  out.append(bytes.data(), bytes.size());
}
void put_int(std::string& out, int field, std::int64_t value) {
  put_varint(out, static_cast<std::uint64_t>(field << 3 | 0));
  put_varint(out, static_cast<std::uint64_t>(value));
}
void put_double(std::string& out, int field, double value) {
  put_varint(out, static_cast<std::uint64_t>(field << 3 | 1));
  put_fixed(out, std::bit_cast<std::uint64_t>(value));
}
void put_float(std::string& out, int field, float value) {
  put_varint(out, static_cast<std::uint64_t>(field << 3 | 5));
  put_fixed(out, std::bit_cast<std::uint32_t>(value));
}
void put_bytes(std::string& out, int field, std::string_view value) {
  put_varint(out, static_cast<std::uint64_t>(field << 3 | 2));
  put_varint(out, value.size());
  out.append(value);
}

std::string event(std::int64_t step) {
  std::string data;
  put_double(data, 1, wall_time());
  put_int(data, 2, step);
  return data;
}

std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(bytes)));
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder, std::int64_t first_step) {
  // TensorBoard reads a folder's files in the order of their names: seconds first, and a counter for two
  // files of one second.
  const auto seconds = static_cast<std::int64_t>(wall_time());
  for (int n = 0; path_.empty() || std::filesystem::exists(path_); ++n) {
    path_ = folder / fmt::format("events.out.tfevents.{:010}.{}.{}.{}", seconds, host_name(), getpid(), n);
  }
  file_.open(path_, std::ios::binary);
  if (!file_) throw Error(fmt::format("cannot write {}", path_.string()));

  std::string version = event(0);
  put_bytes(version, 3, "brain.Event:2");
  write_record(version);
  if (first_step > 0) {
    std::string session, start = event(first_step);
    put_int(session, 1, 1);  // SessionLog.status = START
    put_bytes(start, 7, session);
    write_record(start);
  }
}

void EventFile::add(std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary, data = event(step);
  for (const Scalar& scalar : scalars) {
    std::string value;
    put_bytes(value, 1, scalar.tag);
    put_float(value, 2, static_cast<float>(scalar.value));
    put_bytes(summary, 1, value);
  }
  put_bytes(data, 5, summary);
  write_record(data);
}

void EventFile::write_record(std::string_view data) {
  std::string header, footer;
  put_fixed(header, static_cast<std::uint64_t>(data.size()));
  put_fixed(header, masked_crc(header));
  put_fixed(footer, masked_crc(data));
  file_ << header << data << footer << std::flush;
}

}  // namespace trit::train
