// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "trit/error.h"
#include "trit/format.h"

namespace trit::cuda {

/// No kernel here knows group scales, and one scale for all would be a plausible wrong result.
inline void require_no_groups(ScaleGranularity granularity, const char* function) {
  if (granularity == ScaleGranularity::group) {
    throw Error(std::string("cuda::") + function +
                ": a scale for each group of inputs, wanted one per tensor or per row (group scales run on "
                "the CPU only)");
  }
}

}  // namespace trit::cuda
