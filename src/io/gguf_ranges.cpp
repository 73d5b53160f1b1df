// SPDX-License-Identifier: MIT
#include "io/gguf_ranges.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/integer.h"
#include "io/codecs/blocks.h"
#include "io/codecs/i2_s.h"
#include "io/dtype.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io::gguf {
namespace {

[[noreturn]] void fail(const std::string& what) { throw Error(what); }

/// Bytes of a tensor of type 42 whose blocks are those of `format`; 0 if its rows are not whole blocks.
std::uint64_t bytes_as(const TensorEntry& tensor, const BlockFormat& format) {
  const auto shape = std::span(tensor.shape).first(tensor.dimensions);
  const std::int64_t row = shape.empty() ? 1 : shape.back();
  return row % format.weights != 0
             ? 0
             : static_cast<std::uint64_t>(checked_numel(shape).value_or(0) / format.weights * format.bytes);
}

/// The tensors by offset, an empty one before the one that begins where it lies, and the room of each: up to
/// the next one, or to the end of the data.
struct Placed {
  TensorEntry* tensor = nullptr;
  std::uint64_t room = 0;
};
std::vector<Placed> by_offset(Header& header, std::uint64_t data_bytes) {
  std::vector<Placed> order;
  order.reserve(header.tensors.size());
  for (TensorEntry& tensor : header.tensors) {
    order.push_back({&tensor, 0});
  }
  std::ranges::sort(
      order, {}, [](const Placed& placed) { return std::pair(placed.tensor->offset, placed.tensor->bytes); });
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::uint64_t offset = order[i].tensor->offset;
    const std::uint64_t next =
        i + 1 == order.size() ? std::max(data_bytes, offset) : order[i + 1].tensor->offset;
    order[i].room = next - offset;
  }
  return order;
}

/// Type 42 is Q2_0, blocks of 64 weights in 18 bytes. Before PQ2_0 had its own number, its blocks of 128 weights
/// in 34 bytes had this one. No key distinguishes them, but the bytes between the offsets of a file do.
void resolve_type_42(Header& header, std::span<const Placed> order, const std::string& where) {
  const auto is_of_type = [](const Placed& placed) {
    return placed.tensor->type == kQ2_0.ggml_type && placed.tensor->bytes != 0;
  };
  const auto count = std::ranges::count_if(order, is_of_type);
  const auto fits = [&](const BlockFormat& format) {
    return std::ranges::all_of(order, [&](const Placed& placed) {
      const std::uint64_t bytes = bytes_as(*placed.tensor, format);
      const std::uint64_t padded = round_up(bytes, header.alignment);
      const bool last = placed.tensor == order.back().tensor;
      return !is_of_type(placed) ||
             (bytes != 0 && (last ? bytes <= placed.room && placed.room <= padded : placed.room == padded));
    });
  };
  const bool new_fits = count != 0 && fits(kQ2_0);
  const bool old_fits = count != 0 && fits(kPq2_0);
  const bool is_said = header.block_format == kQ2_0.option || header.block_format == kPq2_0.option;
  if (new_fits && old_fits && !is_said) {
    fail(where +
         "type 42 holds blocks of 64 weights in 18 bytes (Q2_0) or, in older files, of 128 in 34 bytes "
         "(PQ2_0), and both fit the offsets of this file's " +
         std::to_string(count) + " such tensor" + (count == 1 ? "" : "s") + ", of which " +
         quoted_name(std::ranges::find_if(order, is_of_type)->tensor->name) +
         " is the first; choose with --input-type q2_0 or pq2_0");
  }
  if (new_fits != old_fits && header.block_format.empty()) {
    header.block_format = new_fits ? kQ2_0.option : kPq2_0.option;
  }
  if (old_fits && (!new_fits || header.block_format == kPq2_0.option)) {
    for (const Placed& placed : order) {
      if (is_of_type(placed)) {
        placed.tensor->bytes = bytes_as(*placed.tensor, kPq2_0);
        placed.tensor->type = kPq2_0.ggml_type;
      }
    }
  }
}

/// What a range that does not fit may mean.
std::string hint(const TensorEntry& tensor) {
  if (tensor.type == kQ2_0.ggml_type) {
    const std::uint64_t old = bytes_as(tensor, kPq2_0);
    return " (type 42 holds blocks of 64 weights in 18 bytes, or in older files of 128 in 34 bytes, which "
           "are " +
           (old == 0 ? "not possible for its rows" : std::to_string(old) + " bytes") +
           "; neither fits the offsets of all such tensors of the file)";
  }
  if (tensor.type == i2_s::kGgmlType) {
    return " (I2_S is read in the order of bitnet.cpp's x86 build alone: n / 4 bytes of codes, 32 of scale)";
  }
  return "";
}

/// The tensors must follow each other with nothing but padding between them.
void check_ranges(const Header& header, std::span<const Placed> order, std::uint64_t data_begin,
                  std::uint64_t data_bytes, const std::string& where) {
  for (std::size_t i = 0; i < order.size(); ++i) {
    TensorEntry& tensor = *order[i].tensor;
    const std::string what = "tensor " + quoted_name(tensor.name) + ": ";
    const bool last = i + 1 == order.size();
    const std::uint64_t room = order[i].room;
    const std::string range =
        std::to_string(tensor.bytes) + " bytes at offset " + std::to_string(tensor.offset);
    if (i == 0 && tensor.offset != 0) {
      fail(where + what + "the first data begin at offset " + std::to_string(tensor.offset) + ", wanted 0");
    }
    if (tensor.bytes > room) {
      fail(where + what + range +
           (last ? " end outside the file" : " overlap tensor " + quoted_name(order[i + 1].tensor->name)) +
           ", which leaves " + std::to_string(room) + hint(tensor));
    }
    if (!last && room != round_up(tensor.bytes, header.alignment)) {
      fail(where + what + range + " leave a hole before tensor " + quoted_name(order[i + 1].tensor->name) +
           " at " + std::to_string(order[i + 1].tensor->offset) + hint(tensor));
    }
    if (last && room > round_up(tensor.bytes, header.alignment)) {
      fail(where + what + "the data end at offset " + std::to_string(tensor.offset + tensor.bytes) +
           ", but " + std::to_string(room - tensor.bytes) + " bytes follow" + hint(tensor));
    }
    // Not only of the last: empty tensors may follow it.
    if (tensor.bytes != 0 && (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset)) {
      fail(where + what + range + " end outside the file, which has " + std::to_string(data_bytes) +
           " bytes of data");
    }
    tensor.offset = data_begin + (tensor.bytes == 0 ? std::min(tensor.offset, data_bytes) : tensor.offset);
  }
}

}  // namespace

void place_tensors(Header& header, std::uint64_t data_begin, std::uint64_t data_bytes,
                   const std::string& where) {
  const std::vector<Placed> order = by_offset(header, data_bytes);
  resolve_type_42(header, order, where);
  check_ranges(header, order, data_begin, data_bytes, where);
}

}  // namespace trit::io::gguf
