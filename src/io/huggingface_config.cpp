// SPDX-License-Identifier: MIT
#include "io/huggingface_config.h"

#include <nlohmann/json.hpp>

#include "io/json_scalars.h"
#include "trit/error.h"

namespace trit::io {
namespace {

/// The value, or Error that names the key and the type wanted.
template <typename Value>
Value take(JsonScalar& value, std::string_view key, const std::string& wanted, const std::string& what) {
  if (auto* typed = std::get_if<Value>(&value)) {
    return std::move(*typed);
  }
  throw Error(what + ": quantization_config." + std::string(key) + " is " + scalar_text(value) + ", wanted " +
              wanted);
}

}  // namespace

HuggingFaceConfig parse_huggingface_config(std::string_view text, const std::string& what) {
  HuggingFaceConfig config;
  for_each_scalar(text, what, [&](std::span<const std::string> path, JsonScalar value) {
    if (path.size() < 2 || path[0] != "quantization_config") {
      return;
    }
    const std::string& key = path[1];
    const bool null = std::holds_alternative<std::nullptr_t>(value);
    if (path.size() == 3 && key == "modules_to_not_convert") {
      config.modules_to_not_convert.push_back(take<std::string>(value, key, "strings", what));
    }
    if (path.size() != 2 || null) {
      return;  // transformers writes null for "not set"
    }
    if (key == "quant_method") {
      config.quant_method = take<std::string>(value, key, "a string", what);
    } else if (key == "linear_class") {
      config.linear_class = take<std::string>(value, key, "a string", what);
    } else if (key == "quantization_mode") {
      config.quantization_mode = take<std::string>(value, key, "a string", what);
    } else if (key == "use_rms_norm") {
      config.use_rms_norm = take<bool>(value, key, "true or false", what);
    } else if (key == "rms_norm_eps") {
      config.rms_norm_eps = take<double>(value, key, "a number", what);
    }
  });
  if (!config.is_bitnet()) {
    return config;
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

std::string write_huggingface_config(const std::string& base, const HuggingFaceConfig& config) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!base.empty()) {
    try {
      json = nlohmann::ordered_json::parse(base);
    } catch (const nlohmann::json::exception& error) {
      throw Error(std::string("the base config.json is not valid JSON: ") + error.what());
    }
    if (!json.is_object()) {
      throw Error("the base config.json is not an object");
    }
  }
  nlohmann::ordered_json quantization = {{"quant_method", config.quant_method},
                                         {"linear_class", config.linear_class},
                                         {"quantization_mode", config.quantization_mode},
                                         {"use_rms_norm", config.use_rms_norm},
                                         {"rms_norm_eps", config.rms_norm_eps}};
  quantization["modules_to_not_convert"] = nullptr;
  if (!config.modules_to_not_convert.empty()) {
    quantization["modules_to_not_convert"] = config.modules_to_not_convert;
  }
  json["quantization_config"] = quantization;
  return json.dump(2) + "\n";
}

}  // namespace trit::io
