// SPDX-License-Identifier: MIT
//
// JSON that the benchmarks share: the machine, and writing a file.
#pragma once

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/lib/machine.h"
#include "trit/error.h"

namespace trit::bench {

inline nlohmann::ordered_json to_json(const apps::Machine& machine) {
  return {{"cpu", machine.cpu},           {"cores", machine.cores},       {"l2_bytes", machine.l2_bytes},
          {"l3_bytes", machine.l3_bytes}, {"compiler", machine.compiler}, {"date", machine.date}};
}

/// What `path` holds, or an empty object where there is no such file or it is another machine's. A folder
/// stands for <machine>.json in it.
inline nlohmann::ordered_json read_results(std::filesystem::path& path, const apps::Machine& machine) {
  if (std::filesystem::is_directory(path)) {
    path /= machine.slug() + ".json";
  }
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  if (std::ifstream file(path); file) {
    all = nlohmann::ordered_json::parse(file);
  }
  if (!all.contains("machine") || all["machine"]["cpu"] != machine.cpu ||
      all["machine"]["cores"] != machine.cores) {
    all = nlohmann::ordered_json::object();
  }
  return all;
}

/// The object `key` that an earlier run has left in `path`, or an empty one.
inline nlohmann::ordered_json stored(std::filesystem::path path, const std::string& key) {
  return read_results(path, apps::this_machine()).value(key, nlohmann::ordered_json::object());
}

/// Writes `value` under `key` of the JSON object in `path`, beside the machine and what other programs have
/// left there; a file of another machine is begun anew.
inline void store(std::filesystem::path path, const std::string& key, const nlohmann::ordered_json& value) {
  const apps::Machine machine = apps::this_machine();
  nlohmann::ordered_json all = read_results(path, machine);
  all["machine"] = to_json(machine);
  all[key] = value;
  std::ofstream file(path);
  file << all.dump(1) << "\n";
  file.flush();
  if (!file) {
    throw Error(path.string() + ": cannot be written");
  }
}

}  // namespace trit::bench
