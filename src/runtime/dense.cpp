// SPDX-License-Identifier: MIT
#include "runtime/dense.h"

#include <cstdlib>
#include <string_view>

#include "trit/error.h"

namespace trit::runtime {

std::unique_ptr<DenseLibrary> make_dense_library() {
  const char* const variable = std::getenv("TRIT_DENSE");
  const std::string_view wanted = variable == nullptr ? "" : variable;
  if (wanted == "builtin") {
    return make_builtin_library();
  }
#ifdef TRIT_HAVE_ONEDNN
  constexpr std::string_view kLibraries = "onednn, onednn-bf16-pairs, builtin";
  if (wanted.empty() || wanted == "onednn" || wanted == "onednn-bf16-pairs") {
    return make_onednn_library(wanted == "onednn-bf16-pairs");
  }
#else
  constexpr std::string_view kLibraries = "builtin";
  if (wanted.empty()) {
    return make_builtin_library();
  }
#endif
  throw Error("TRIT_DENSE is \"" + std::string(wanted) + "\", this build has: " + std::string(kLibraries));
}

}  // namespace trit::runtime
