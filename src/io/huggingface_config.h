// SPDX-License-Identifier: MIT
//
// What a config.json of transformers says of BitNet layers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trit/io.h"

namespace trit::io {

struct HuggingFaceConfig {
  /// quantization_config.quant_method; empty if there is no quantization_config.
  std::string quant_method;
  std::string model_type;                     // of the whole config
  std::string linear_class = "bitlinear";     // or "autobitlinear"
  std::string quantization_mode = "offline";  // or "online"
  bool use_rms_norm = false;
  double rms_norm_eps = 1e-6;
  std::vector<std::string> modules_to_not_convert;
  bool lists_modules = false;  // it is a list, though an empty one, and not null

  bool is_bitnet() const { return quant_method == "bitnet"; }
  /// autobitlinear, online: the weights are float matrices that are made ternary in each forward pass.
  bool is_online() const { return linear_class == "autobitlinear" && quantization_mode == "online"; }
  /// Of is_bitnet(): bitlinear divides by weight_scale, autobitlinear multiplies.
  ScaleConvention convention() const {
    return linear_class == "autobitlinear" ? ScaleConvention::multiply : ScaleConvention::divide;
  }
};

/// Reads text as Python's json module writes it. Throws Error, starting with `what`: text that is not such
/// JSON, and, if quant_method is "bitnet", values of the other keys above that are unknown or of another
/// type.
HuggingFaceConfig parse_huggingface_config(std::string_view text, const std::string& what);

/// Whether transformers leaves the module alone for the sake of modules_to_not_convert: an entry names its
/// end, or its beginning up to a dot or the end, literally or as a regular expression. Throws Error for an
/// expression whose matching could take exponential time.
bool is_not_converted(const HuggingFaceConfig& config, std::string_view module);

/// `base` (text of a config.json, or empty) with the quantization_config of `config`; everything else is
/// kept, in its order, NaN and infinities too.
std::string write_huggingface_config(const std::string& base, const HuggingFaceConfig& config);

}  // namespace trit::io
