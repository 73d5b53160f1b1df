// SPDX-License-Identifier: MIT
//
// save_safetensors (trit/safetensors.h): tensors that lie in memory, through the streaming writer.
#include "base/atomic_file.h"
#include "io/dtype.h"
#include "io/safetensors_stream.h"
#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::io {

void save_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                      const std::map<std::string, std::string, std::less<>>& metadata) {
  std::vector<SafetensorsEntry> entries;
  entries.reserve(tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    const auto bytes = checked_bytes(tensor.dtype, tensor.shape);
    if (dtype_bits(tensor.dtype) != 0 && bytes && static_cast<std::uint64_t>(*bytes) != tensor.data.size()) {
      throw Error(path.string() + ": tensor \"" + tensor.name + "\": " + std::to_string(tensor.data.size()) +
                  " bytes, wanted " + std::to_string(*bytes) + " for " + tensor.dtype + " " +
                  shape_text(tensor.shape));
    }
    entries.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  SafetensorsStream stream(path, entries, metadata);
  for (const std::size_t index : stream.order()) {
    stream.write(tensors[index].data);
  }
  stream.commit();
}

void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> parts) {
  AtomicFile file(path);
  for (const std::span<const std::byte> part : parts) {
    file.write(part);
  }
  file.commit();
}

}  // namespace trit::io
