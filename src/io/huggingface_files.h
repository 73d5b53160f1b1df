// SPDX-License-Identifier: MIT
//
// Which files a checkpoint of transformers consists of: config.json, and model.safetensors or the shards that
// model.safetensors.index.json names.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace trit::io {

struct HuggingFaceFiles {
  std::filesystem::path folder;
  std::filesystem::path index_path;                       // empty without shards
  std::vector<std::filesystem::path> paths;               // of the weights
  std::map<std::string, std::string, std::less<>> index;  // tensor -> file name; empty without shards
};

/// Whether the path alone says that it is a model of transformers: a folder, or an index of shards.
bool names_folder_of_transformers(const std::filesystem::path& path);

/// The files of a folder, of an index, or one file of weights. Throws Error for a folder without a model, a
/// bad index, and a shard that is not there.
HuggingFaceFiles find_huggingface_files(const std::filesystem::path& path);

/// Throws Error, naming index and folder, if an index beside `file` lists it as one of several shards.
void refuse_lone_shard(const std::filesystem::path& file);

}  // namespace trit::io
