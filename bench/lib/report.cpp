// SPDX-License-Identifier: MIT
#include "bench/lib/report.h"

#include <algorithm>
#include <fstream>

#include "trit/error.h"

namespace trit::bench {

using nlohmann::ordered_json;

namespace {

/// The content of `path`, or an empty object if there is no such file or it is another machine's.
ordered_json read_results(std::filesystem::path& path, const Machine& machine) {
  if (std::filesystem::is_directory(path)) {
    path /= machine.slug() + ".json";
  }
  ordered_json all = ordered_json::object();
  if (std::ifstream file(path); file) {
    all = ordered_json::parse(file);
  }
  const bool same = all.contains("machine") && all["machine"]["cpu"] == machine.cpu &&
                    all["machine"]["cores"] == machine.cores;
  return same ? all : ordered_json::object();
}

}  // namespace

ordered_json to_json(const Machine& machine) {
  return {{"cpu", machine.cpu},           {"cores", machine.cores},       {"l2_bytes", machine.l2_bytes},
          {"l3_bytes", machine.l3_bytes}, {"compiler", machine.compiler}, {"date", machine.date}};
}

ordered_json stored(std::filesystem::path path, const std::string& key) {
  return read_results(path, this_machine()).value(key, ordered_json::object());
}

void store(std::filesystem::path path, const std::string& key, const ordered_json& value) {
  const Machine machine = this_machine();
  ordered_json all = read_results(path, machine);
  all["machine"] = to_json(machine);
  all[key] = value;
  write_json(path, all);
}

void keep_others(ordered_json& results, const ordered_json& old, std::span<const char* const> keys) {
  const auto same_case = [&](const ordered_json& a, const ordered_json& b) {
    return std::ranges::all_of(
        keys, [&](const char* key) { return a.value(key, ordered_json()) == b.value(key, ordered_json()); });
  };
  for (const ordered_json& item : old) {
    if (std::none_of(results.begin(), results.end(),
                     [&](const ordered_json& mine) { return same_case(mine, item); })) {
      results.push_back(item);
    }
  }
}

void write_json(const std::filesystem::path& path, const ordered_json& value) {
  std::ofstream file(path);
  file << value.dump(1) << "\n";
  if (!file.flush()) {
    throw Error(path.string() + ": cannot be written");
  }
}

}  // namespace trit::bench
