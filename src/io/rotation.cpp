// SPDX-License-Identifier: MIT
#include "io/rotation.h"

#include <algorithm>

#include "io/dtype.h"
#include "io/json_scalars.h"
#include "io/mapped_file.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

std::string key_of(const char* name) { return std::string(kRotationPrefix) + name; }

/// found(key of the list, name).
template <typename Found>
void for_each_name(const Rotation& rotation, const Found& found) {
  for (const std::string& name : rotation.weights) {
    found(key_of("weight_names"), name);
  }
  for (const std::string& name : rotation.look_ups) {
    found(key_of("inverse_weight_names"), name);
  }
}

}  // namespace

std::string rotation_text(const Rotation& rotation) {
  Json json = Json::object();
  json[key_of("version")] = 1;
  json[key_of("block_size")] = rotation.block;
  json[key_of("transform")] = kRotationTransform;
  json[key_of("axis")] = kRotationAxis;
  json[key_of("sign_mode")] = rotation.signs.empty() ? "identity" : "explicit";
  if (!rotation.signs.empty()) {
    Json widths = Json::array();
    Json values = Json::array();
    for (const auto& [width, signs] : rotation.signs) {
      widths.push_back(width);
      for (const std::int8_t sign : signs) {
        values.push_back(static_cast<int>(sign));
      }
    }
    json[key_of("sign_widths")] = std::move(widths);
    json[key_of("sign_values")] = std::move(values);
  }
  json[key_of("weight_names")] = rotation.weights;
  json[key_of("inverse_weight_names")] = rotation.look_ups;
  if (rotation.grouped_v_heads) {
    json[key_of("gdn_v_grouped")] = true;
  }
  return json.dump();
}

std::uint64_t write_rotation(const Rotation& rotation, gguf::ByteWriter& header) {
  std::uint64_t count = 0;
  const auto key = [&](const char* name, std::uint32_t type) {
    header.string(key_of(name));
    header.number(type);
    ++count;
  };
  const auto text = [&](const char* name, std::string_view value) {
    key(name, gguf::kString);
    header.string(value);
  };
  const auto array = [&](const char* name, std::uint32_t type, std::size_t size) {
    key(name, gguf::kArray);
    header.number(type);
    header.number(static_cast<std::uint64_t>(size));
  };
  key("version", gguf::kUint32);
  header.number(std::uint32_t{1});
  key("block_size", gguf::kUint32);
  header.number(static_cast<std::uint32_t>(rotation.block));
  text("transform", kRotationTransform);
  text("axis", kRotationAxis);
  text("sign_mode", rotation.signs.empty() ? "identity" : "explicit");
  if (!rotation.signs.empty()) {
    std::size_t total = 0;
    array("sign_widths", gguf::kInt32, rotation.signs.size());
    for (const auto& [width, signs] : rotation.signs) {
      header.number(static_cast<std::int32_t>(width));
      total += signs.size();
    }
    array("sign_values", gguf::kInt32, total);
    for (const auto& [width, signs] : rotation.signs) {
      for (const std::int8_t sign : signs) {
        header.number(std::int32_t{sign});
      }
    }
  }
  for (const auto& [name, list] : {std::pair("weight_names", &rotation.weights),
                                   std::pair("inverse_weight_names", &rotation.look_ups)}) {
    if (!list->empty()) {
      array(name, gguf::kString, list->size());
      for (const std::string& matrix : *list) {
        header.string(matrix);
      }
    }
  }
  if (rotation.grouped_v_heads) {
    key("gdn_v_grouped", gguf::kBool);
    header.number(std::uint8_t{1});
  }
  return count;
}

void add_rotation_file(Metadata& metadata, const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "hadamard.json";
  std::error_code ignored;
  if (metadata.contains(kRotationKey) || !std::filesystem::exists(path, ignored)) {
    return;
  }
  Metadata read{{std::string(kRotationKey), read_text_file(path, kMaxRotationBytes)}};
  if (const auto rotation = rotation_of(read, path.string())) {
    metadata[std::string(kRotationKey)] = rotation_text(*rotation);
  }
}

void check_width(const Rotation& rotation, const std::string& matrix, std::int64_t width,
                 const std::string& what) {
  const std::string start =
      what + ": the matrix " + quoted_name(matrix) + " has " + std::to_string(width) + " inputs, ";
  if (width % rotation.block != 0) {
    throw Error(start + "wanted a multiple of " + quoted_name(key_of("block_size")) + ", " +
                std::to_string(rotation.block));
  }
  if (!rotation.signs.empty() && !rotation.signs.contains(width)) {
    throw Error(start + "which " + quoted_name(key_of("sign_widths")) + " lacks");
  }
}

std::string check_rotation(const Metadata& metadata, std::span<const TensorInfo> tensors,
                           const std::string& what) {
  const auto rotation = rotation_of(metadata, what);
  if (!rotation) {
    return "";
  }
  for_each_name(*rotation, [&](const std::string& key, const std::string& name) {
    const auto at = std::ranges::lower_bound(tensors, name, {}, &TensorInfo::name);
    if (at == tensors.end() || at->name != name || at->shape.size() < 2) {
      throw Error(what + ": " + quoted_name(key) + " names " + quoted_name(name) +
                  ", which is no matrix of the model");
    }
    check_width(*rotation, name, at->shape.back(), what);
  });
  return ", rotated weights (prism.hadamard, blocks of " + std::to_string(rotation->block) + ")";
}

void rename_rotation(Metadata& metadata,
                     const std::function<std::optional<std::string>(std::string_view name)>& rename) {
  auto rotation = rotation_of(metadata, std::string(kRotationKey));
  if (!rotation) {
    return;
  }
  for (std::vector<std::string>* list : {&rotation->weights, &rotation->look_ups}) {
    std::vector<std::string> renamed;
    for (const std::string& name : *list) {
      if (auto other = rename(name)) {
        renamed.push_back(std::move(*other));
      }
    }
    *list = std::move(renamed);
  }
  if (rotation->weights.empty() && rotation->look_ups.empty()) {
    metadata.erase(metadata.find(kRotationKey));
  } else {
    metadata[std::string(kRotationKey)] = rotation_text(*rotation);
  }
}

void refuse_rotation(const Metadata& metadata, const std::string& what) {
  if (const auto rotation = rotation_of(metadata, what)) {
    throw Error(what + ": the weights of " +
                std::to_string(rotation->weights.size() + rotation->look_ups.size()) +
                " matrices are rotated (" + key_of("block_size") + " " + std::to_string(rotation->block) +
                "), and the rotation of the activations is not applied here: the results would be wrong");
  }
}

}  // namespace trit::io
