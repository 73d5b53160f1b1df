// SPDX-License-Identifier: MIT
#include "train_cifar10/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "trit/crc32c.h"
#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::train {
namespace {

struct NamedType {
  const char* name;
  torch::ScalarType type;
};
constexpr std::array<NamedType, 4> kTypes{
    {{"F32", torch::kFloat32}, {"F64", torch::kFloat64}, {"I64", torch::kInt64}, {"U8", torch::kUInt8}}};
constexpr const char* kFormat = "train_cifar10 checkpoint 1";
constexpr std::size_t kMaxFiles = 2;

std::uint32_t crc_of_text(std::string_view text, std::uint32_t crc) {
  return crc32c(std::as_bytes(std::span(text)), crc);
}

/// Over the state and, in the order of their names, each tensor's name, type, shape and bytes.
class Checksum {
 public:
  explicit Checksum(std::string_view state) : crc_(crc_of_text(state, 0)) {}
  void add(std::string_view name, std::string_view type, std::span<const std::int64_t> shape,
           std::span<const std::byte> data) {
    crc_ = crc_of_text(fmt::format("|{} {}", name, type), crc_);
    crc_ = crc32c(std::as_bytes(shape), crc_);
    crc_ = crc32c(data, crc_);
  }
  std::string text() const { return fmt::format("{:08x}", crc_); }

 private:
  std::uint32_t crc_;
};

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  const std::string state = checkpoint.state.dump();
  Checksum checksum(state);
  std::vector<torch::Tensor> owners;  // of the memory that the spans below refer to
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const torch::Tensor plain = tensor.detach().cpu().contiguous();
    const auto type = std::find_if(kTypes.begin(), kTypes.end(),
                                   [&](const NamedType& t) { return t.type == plain.scalar_type(); });
    if (type == kTypes.end()) throw Error(fmt::format("checkpoint: tensor {} has an unsupported type", name));
    owners.push_back(plain);
    const std::span<const std::byte> data(static_cast<const std::byte*>(plain.const_data_ptr()),
                                          plain.nbytes());
    checksum.add(name, type->name, {plain.sizes().data(), plain.sizes().size()}, data);
    tensors.push_back({name, type->name, plain.sizes().vec(), data});
  }
  io::save_safetensors(path, tensors, {{"format", kFormat}, {"state", state}, {"crc32c", checksum.text()}});
}

Checkpoint load_checkpoint(const std::filesystem::path& path) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  const auto metadata = [&](const char* key) -> const std::string& {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end())
      throw Error(fmt::format("{}: not a checkpoint: no \"{}\"", path.string(), key));
    return found->second;
  };
  if (metadata("format") != kFormat) {
    throw Error(fmt::format("{}: wanted \"{}\", found \"{}\"", path.string(), kFormat, metadata("format")));
  }
  Checkpoint checkpoint;
  Checksum checksum(metadata("state"));
  for (const auto& [name, view] : file.tensors()) {
    checksum.add(name, view.dtype, view.shape, view.data);
    const auto type =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const NamedType& t) { return t.name == view.dtype; });
    if (type == kTypes.end())
      throw Error(fmt::format("{}: tensor {} has type {}", path.string(), name, view.dtype));
    torch::Tensor tensor = torch::empty(view.shape, torch::dtype(type->type));
    if (!view.data.empty()) std::memcpy(tensor.mutable_data_ptr(), view.data.data(), view.data.size());
    checkpoint.tensors.emplace(name, std::move(tensor));
  }
  if (checksum.text() != metadata("crc32c")) {
    throw Error(fmt::format("{}: corrupt: its checksum is {}, it says {}", path.string(), checksum.text(),
                            metadata("crc32c")));
  }
  checkpoint.state = nlohmann::json::parse(metadata("state"));
  return checkpoint;
}

void CheckpointStore::save(std::int64_t step, const Checkpoint& checkpoint) const {
  save_checkpoint(folder_ / fmt::format("checkpoint-{:010}.safetensors", step), checkpoint);
  const std::vector<std::filesystem::path> all = files();
  for (std::size_t i = 0; i + kMaxFiles < all.size(); ++i) std::filesystem::remove(all[i]);
}

std::vector<std::filesystem::path> CheckpointStore::files() const {
  std::vector<std::filesystem::path> result;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("checkpoint-") && name.ends_with(".safetensors")) result.push_back(entry.path());
  }
  std::sort(result.begin(), result.end());  // names have ten digits and sort like the steps
  return result;
}

std::optional<Checkpoint> CheckpointStore::load_newest(
    const std::function<void(const std::string&)>& warn) const {
  const std::vector<std::filesystem::path> all = files();
  for (auto path = all.rbegin(); path != all.rend(); ++path) {
    try {
      return load_checkpoint(*path);
    } catch (const Error& error) {
      warn(error.what());
    }
  }
  if (!all.empty())
    throw Error(fmt::format("{}: all checkpoints are damaged; there is nothing to resume", folder_.string()));
  return std::nullopt;
}

}  // namespace trit::train
