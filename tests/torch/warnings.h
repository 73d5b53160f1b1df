// SPDX-License-Identifier: MIT
#pragma once

#include <torch/torch.h>

#include <string>

namespace trit::test {

// What TORCH_WARN says while this lives.
class Warnings : public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override { text += warning.msg() + "\n"; }
  bool has(const std::string& needle) const { return text.find(needle) != std::string::npos; }
  std::string text;

 private:
  c10::WarningUtils::WarningHandlerGuard guard_{this};
};

}  // namespace trit::test
