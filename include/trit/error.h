// SPDX-License-Identifier: MIT
#pragma once

#include <stdexcept>
#include <string>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// Every failure that this library reports. The message names what was found and what would be accepted: the
/// file, the offset, the tensor, the shape.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace trit

TRIT_EXPORT_END
