// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace trit::train {

/// Sums over consecutive training steps. A step whose loss or gradient is not finite is skipped: it leaves
/// the parameters as they are. (Plain numbers: a GPU kernel adds to them in GPU memory.)
struct StepSums {
  double loss_sum = 0.0;         // over the images of steps with a finite loss
  std::int64_t loss_images = 0;  // number of those images
  std::int64_t correct = 0;      // those whose largest logit was their label's
  std::int64_t skipped = 0;      // consecutive skipped steps up to now, earlier ones included
  std::int64_t max_skipped = 0;  // the longest such sequence
  double last_loss = 0.0;
};

}  // namespace trit::train
