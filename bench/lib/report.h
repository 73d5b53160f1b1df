// SPDX-License-Identifier: MIT
//
// JSON that the benchmarks share: the machine, and result files.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "bench/lib/machine.h"

namespace trit::bench {

nlohmann::ordered_json to_json(const Machine& machine);

/// The object `key` that an earlier run on this machine has left in `path`, or an empty one. A folder means
/// <machine>.json in it.
nlohmann::ordered_json stored(std::filesystem::path path, const std::string& key);

/// Writes `value` under `key` of the JSON object in `path`, beside the machine and the results of other
/// programs. A file of another machine is replaced.
void store(std::filesystem::path path, const std::string& key, const nlohmann::ordered_json& value);

/// Adds to the list `results` the items of `old` that measure another case: those that differ from every
/// result in at least one of `keys`.
void keep_others(nlohmann::ordered_json& results, const nlohmann::ordered_json& old,
                 std::span<const char* const> keys);

void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& value);

}  // namespace trit::bench
