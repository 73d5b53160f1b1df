// SPDX-License-Identifier: MIT
//
// Gradients of a module, summed over the processes and handed to those that own their rows.
//
//   gradient of a parameter [R, ...] -> [P, elements of a block] --+
//   ...                                                           +-- bucket [P, n] -- reduce_scatter --> [n] / P
//   gradient of another      [R, ...] -> [P, elements of a block] --+                  float32, the shards' gradients
//
// A bucket is several blocks, or one that is as large as a bucket by itself; its gradient need not be copied
// into it where it is of the type that is sent. Sums of one bucket are under way while the next is filled.
#pragma once

#include <functional>
#include <vector>

#include "torch/distributed/block.h"
#include "trit/distributed.h"

namespace trit::distributed {

class GradientBuckets {
 public:
  /// Sorts `blocks`: large ones first, in the order in which a backward has their gradients. They must outlive it.
  GradientBuckets(const ProcessGroup& group, const ShardedOptimizerOptions& options,
                  std::vector<Block>& blocks);
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  /// Sets whether a backward begins the sums of a bucket as soon as it has the gradients of all of its blocks.
  /// Throws c10::Error where a parameter has another hook that runs after its gradient.
  void reduce_in_backward(bool on);
  /// Collective: the means of all gradients become those of the shards. Throws Error that names the parameter for
  /// a gradient that has changed since its sums began.
  void finish();
  /// Waits for outstanding sums and drops their results. Collective after a backward that may have begun some: one
  /// process may have begun more than another.
  void discard();

 private:
  struct Sent {
    torch::Tensor gradient;
    std::int64_t version;
  };
  struct Bucket {
    std::size_t first, last;  // of the blocks
    std::int64_t elements;    // of a process
    std::size_t waits_for;    // blocks whose gradient this backward has not given
    torch::Tensor mine;       // float32, this process' means
    torch::Tensor sums;       // `mine`, or of the gradients' type
    std::vector<Sent> sent;   // the blocks' gradients, where the sums began in a backward
    std::function<void()> finish;
  };
  class Hook;

  void given(std::size_t block);
  void begin(Bucket& bucket);
  void begin_the_rest();
  torch::Tensor filled(const Bucket& bucket) const;
  void check_unchanged(const Bucket& bucket) const;
  void remove_hooks();
  void restart();

  ProcessGroup group_;
  ShardedOptimizerOptions options_;
  std::vector<Block>& blocks_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // a block
  std::vector<bool> given_;             // blocks whose gradient a backward has given since restart()
  std::size_t next_ = 0;  // the first bucket that has not begun: the same order in every process
};

}  // namespace trit::distributed
