// SPDX-License-Identifier: MIT
#include "io/huggingface_config.h"

#include <algorithm>
#include <map>
#include <regex>

#include "io/expression.h"
#include "io/json_scalars.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

constexpr JsonRules kPythonRules{.python_member = "quantization_config"};

/// The value, or Error that names the key and the type wanted.
template <typename Value>
Value take(JsonScalar& value, std::string_view key, const std::string& wanted, const std::string& what) {
  if (auto* typed = std::get_if<Value>(&value)) {
    return std::move(*typed);
  }
  throw Error(what + ": quantization_config." + std::string(key) + " is " + scalar_text(value) + ", wanted " +
              wanted);
}

// std::regex recurses once a character, and its time doubles or worse with every choice.
constexpr std::size_t kLongestEntry = 200;
constexpr std::ptrdiff_t kMostChoices = 3;

/// Whether the entry of modules_to_not_convert holds for the module.
bool leaves_out(const std::string& entry, std::string_view module) {
  if (module.ends_with(entry)) {
    return true;
  }
  if (entry.find_first_of("*+?{[(|^$\\") == std::string::npos) {
    // A beginning up to a dot or the end, in which a dot of the entry stands for any character.
    const auto same = [](char e, char m) { return e == m || e == '.'; };
    const std::size_t end = entry.size();
    return end <= module.size() && std::equal(entry.begin(), entry.end(), module.begin(), same) &&
           (end == module.size() || module[end] == '.' || (end > 0 && module[end - 1] == '.'));
  }
  const std::ptrdiff_t repetitions =
      std::count_if(entry.begin(), entry.end(), [](char c) { return c == '*' || c == '+' || c == '{'; });
  const std::ptrdiff_t options =
      std::count_if(entry.begin(), entry.end(), [](char c) { return c == '(' || c == '?'; });
  const std::string problem = expression_problem(entry);
  if (!problem.empty() || entry.size() > kLongestEntry || repetitions + options > kMostChoices ||
      (repetitions > 0 && options > 0)) {
    throw Error("modules_to_not_convert of config.json has the expression " + quoted_name(entry) +
                (problem.empty() ? std::string() : " with " + problem) + ", wanted at most " +
                std::to_string(kLongestEntry) + " characters, " + std::to_string(kMostChoices) +
                " repetitions or groups, not both, none repeated again, and numbers of 9 digits");
  }
  try {
    return std::regex_match(module.begin(), module.end(), std::regex("(?:" + entry + ")(?:\\..*)?"));
  } catch (const std::regex_error&) {
    return false;  // no expression: the entry names an ending or a beginning literally
  }
}

}  // namespace

HuggingFaceConfig parse_huggingface_config(std::string_view text, const std::string& what) {
  HuggingFaceConfig config;
  std::map<std::string, JsonScalar, std::less<>> members;  // of quantization_config
  std::vector<JsonScalar> left_out;
  const auto keep = [&](std::span<const std::string> path, JsonScalar value) {
    if (path.size() == 1 && path[0] == "model_type" && std::holds_alternative<std::string>(value)) {
      config.model_type = std::get<std::string>(value);
    } else if (path.size() == 2 && path[0] == "quantization_config") {
      members.emplace(path[1], std::move(value));
    } else if (path.size() == 3 && path[0] == "quantization_config" && path[1] == "modules_to_not_convert") {
      config.lists_modules = true;
      if (!path[2].empty()) {
        left_out.push_back(std::move(value));
      }
    }
  };
  for_each_scalar(text, what, keep, kPythonRules);
  if (const auto method = members.find("quant_method");
      method != members.end() && std::holds_alternative<std::string>(method->second)) {
    config.quant_method = std::get<std::string>(method->second);
  }
  if (!config.is_bitnet()) {
    return config;
  }
  // transformers writes null for "not set".
  const auto read = [&]<typename Value>(Value& member, std::string_view key, const char* wanted) {
    const auto at = members.find(key);
    if (at != members.end() && !std::holds_alternative<std::nullptr_t>(at->second)) {
      member = take<Value>(at->second, key, wanted, what);
    }
  };
  read(config.linear_class, "linear_class", "a string");
  read(config.quantization_mode, "quantization_mode", "a string");
  read(config.use_rms_norm, "use_rms_norm", "true or false");
  read(config.rms_norm_eps, "rms_norm_eps", "a number");
  for (JsonScalar& value : left_out) {
    config.modules_to_not_convert.push_back(
        take<std::string>(value, "modules_to_not_convert", "strings", what));
  }
  const auto one_of = [&](const std::string& key, const std::string& value, const char* first,
                          const char* second) {
    if (value != first && value != second) {
      throw Error(what + ": quantization_config." + key + " is " + scalar_text(value) + ", wanted \"" +
                  first + "\" or \"" + second + "\"");
    }
  };
  one_of("linear_class", config.linear_class, "bitlinear", "autobitlinear");
  one_of("quantization_mode", config.quantization_mode, "offline", "online");
  return config;
}

bool is_not_converted(const HuggingFaceConfig& config, std::string_view module) {
  return std::any_of(config.modules_to_not_convert.begin(), config.modules_to_not_convert.end(),
                     [&](const std::string& entry) { return leaves_out(entry, module); });
}

std::string write_huggingface_config(const std::string& base, const HuggingFaceConfig& config) {
  Json json = base.empty() ? Json::object() : parse_json(base, "the base config.json", kPythonRules);
  if (!json.is_object()) {
    throw Error("the base config.json is not an object");
  }
  Json quantization = {{"quant_method", config.quant_method},
                       {"linear_class", config.linear_class},
                       {"quantization_mode", config.quantization_mode},
                       {"use_rms_norm", config.use_rms_norm},
                       {"rms_norm_eps", config.rms_norm_eps}};
  quantization["modules_to_not_convert"] = nullptr;
  if (!config.modules_to_not_convert.empty()) {
    quantization["modules_to_not_convert"] = config.modules_to_not_convert;
  }
  json["quantization_config"] = quantization;
  return python_text(json) + "\n";
}

}  // namespace trit::io
