// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace trit::apps {

/// For an option or argument that names a file or folder. "-" and "" are wrong usage: standard input and
/// output are not supported.
inline CLI::Validator path_check() {
  return CLI::Validator(
      [](std::string& path) {
        return path.empty() ? std::string("'': wanted the name of a file or folder")
               : path == "-"
                   ? std::string("'-': standard input and output are not supported; name a file (./- is one)")
                   : std::string();
      },
      "", "path");
}

}  // namespace trit::apps
