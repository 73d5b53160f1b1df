// SPDX-License-Identifier: MIT
#include "base/environment.h"

#include <charconv>

#include "trit/distributed.h"

namespace trit::distributed {
namespace {

constexpr int kMaxProcesses = 1 << 16;

[[noreturn]] void missing(const char* name) {
  throw Error(std::string(name) +
              " is not set: start the processes with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and "
              "MASTER_PORT for each");
}

int number(const char* name, int min, int max, const std::string& why = {}) {
  const std::string_view text = environment_variable(name);
  int value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size() || value < min || value > max) {
    throw Error(std::string(name) + ": found '" + std::string(text) + "', wanted a whole number from " +
                std::to_string(min) + " to " + std::to_string(max) + why);
  }
  return value;
}

int number_or(const char* name, int unset, int min, int max, const std::string& why = {}) {
  return environment_variable(name).empty() ? unset : number(name, min, max, why);
}

std::string because(const char* name, int value) {
  return " (" + std::string(name) + " is " + std::to_string(value) + ")";
}

}  // namespace

bool is_launched() {
  return !environment_variable("RANK").empty() || !environment_variable("WORLD_SIZE").empty();
}

Environment environment() {
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    if (environment_variable(name).empty()) {
      missing(name);
    }
  }
  Environment result;
  result.world_size = number("WORLD_SIZE", 1, kMaxProcesses);
  result.rank = number("RANK", 0, result.world_size - 1, because("WORLD_SIZE", result.world_size));
  result.local_world_size = number_or("LOCAL_WORLD_SIZE", result.world_size, 1, result.world_size,
                                      because("WORLD_SIZE", result.world_size));
  result.local_rank = number_or("LOCAL_RANK", result.rank, 0, result.local_world_size - 1,
                                because("LOCAL_WORLD_SIZE", result.local_world_size));
  result.master_address = environment_variable("MASTER_ADDR");
  result.master_port = static_cast<std::uint16_t>(number("MASTER_PORT", 1, 65535));
  result.agent_store = environment_variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  result.restart = number_or("TORCHELASTIC_RESTART_COUNT", 0, 0, 1 << 20);
  return result;
}

}  // namespace trit::distributed
