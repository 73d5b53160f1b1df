// SPDX-License-Identifier: MIT
#include "io/huggingface_files.h"

#include <algorithm>
#include <set>

#include "io/json_scalars.h"
#include "io/mapped_file.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

namespace fs = std::filesystem;
using Index = std::map<std::string, std::string, std::less<>>;

constexpr std::size_t kMaxIndexBytes = std::size_t{100} << 20;
constexpr const char* kIndexEnding = ".safetensors.index.json";

/// tensor -> file name.
Index read_index(const fs::path& path) {
  const std::string what = path.string();
  Index files;
  for_each_scalar(read_text_file(path, kMaxIndexBytes), what,
                  [&](std::span<const std::string> keys, JsonScalar value) {
                    if (keys.size() != 2 || keys[0] != "weight_map") {
                      return;
                    }
                    const auto* file = std::get_if<std::string>(&value);
                    if (file == nullptr || !file->ends_with(".safetensors") ||
                        file->find_first_of("/\\") != std::string::npos ||
                        file->find('\0') != std::string::npos) {
                      throw Error("weight_map names " + scalar_text(value) + " for " + quoted_name(keys[1]) +
                                  ", wanted a .safetensors file in the same folder");
                    }
                    files.emplace(keys[1], *file);
                  },
                  {.python_member = "weight_map"});
  if (files.empty()) {
    throw Error(what + ": no weight_map, wanted one that names the file of each tensor");
  }
  return files;
}

std::set<std::string> file_names(const Index& index) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) {
    names.insert(file);
  }
  return names;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

/// What a folder without model.safetensors holds that looks like a model, for the message.
std::string other_models(const fs::path& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    const std::string ending = at->path().extension().string();
    if (ending == ".safetensors" || ending == ".gguf" || ending == ".bin" || ending == ".pt" ||
        ending == ".pth") {
      found.push_back(at->path().filename().string());
    }
  }
  std::sort(found.begin(), found.end());
  constexpr std::size_t kMost = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(found.size(), kMost); ++i) {
    text += (i == 0 ? "; it holds " : ", ") + quoted_name(found[i]);
  }
  return text + (found.size() > kMost ? ", ..." : "");
}

void read_shards(const fs::path& index_path, HuggingFaceFiles& files) {
  files.index_path = index_path;
  files.index = read_index(index_path);
  for (const std::string& name : file_names(files.index)) {
    files.paths.push_back(files.folder / name);
    if (!is_there(files.paths.back())) {
      const auto tensor = std::find_if(files.index.begin(), files.index.end(),
                                       [&](const auto& entry) { return entry.second == name; });
      throw Error(index_path.string() + ": the shard " + quoted_name(name) + ", which holds " +
                  quoted_name(tensor->first) + ", is not in the folder");
    }
  }
}

}  // namespace

bool names_folder_of_transformers(const fs::path& path) {
  return fs::is_directory(path) || path.filename().string().ends_with(kIndexEnding);
}

HuggingFaceFiles find_huggingface_files(const fs::path& path) {
  HuggingFaceFiles files;
  const std::string model = "model.safetensors";
  if (!fs::is_directory(path)) {
    files.folder = folder_of(path);
    if (path.filename().string().ends_with(kIndexEnding)) {
      read_shards(path, files);
    } else {
      files.paths = {path};
    }
    return files;
  }
  files.folder = path;
  if (is_there(path / model)) {
    files.paths = {path / model};
  } else if (is_there(path / (model + ".index.json"))) {
    read_shards(path / (model + ".index.json"), files);
  } else {
    throw Error(path.string() + ": a folder without " + model + " or " + model +
                ".index.json, wanted one of them (a model as transformers saves it)" + other_models(path));
  }
  return files;
}

void refuse_lone_shard(const fs::path& file) {
  const std::string name = file.filename().string();
  std::set<fs::path> candidates{folder_of(file) / ("model" + std::string(kIndexEnding))};
  // model-00001-of-00002.safetensors
  constexpr std::string_view kNumbers = "-00001-of-00002.safetensors";
  if (name.size() > kNumbers.size()) {
    candidates.insert(folder_of(file) / (name.substr(0, name.size() - kNumbers.size()) + kIndexEnding));
  }
  for (const fs::path& candidate : candidates) {
    if (!is_there(candidate)) {
      continue;
    }
    std::set<std::string> shards;
    try {
      shards = file_names(read_index(candidate));
    } catch (const Error&) {
      continue;  // a broken index says nothing of the file
    }
    if (shards.size() > 1 && shards.contains(name)) {
      throw Error(file.string() + ": one of the " + std::to_string(shards.size()) + " shards that " +
                  candidate.string() + " lists, a part of a model; wanted that index, or its folder " +
                  folder_of(file).string());
    }
  }
}

}  // namespace trit::io
