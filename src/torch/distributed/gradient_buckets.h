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

  /// Whether a backward begins the sums of a bucket as soon as it has the gradients of all of its blocks.
  void reduce_in_backward(bool on) { in_backward_ = on; }
  /// Collective: the means of all gradients become those of the shards. Throws Error that names the parameter for
  /// a gradient that has changed since its sums began.
  void finish();
  /// Waits for sums that have begun, and forgets them.
  void discard();

 private:
  struct Bucket {
    std::size_t first, last;             // of the blocks
    std::int64_t elements;               // of a process
    std::size_t waits_for;               // blocks whose gradient this backward has not given
    torch::Tensor mine;                  // float32, this process' means
    torch::Tensor sums;                  // `mine`, or of the gradients' type
    std::vector<std::int64_t> versions;  // of the blocks' gradients, where the sums began in a backward
    std::function<void()> finish;
  };
  class Hook;

  void ready(std::size_t block);
  void begin(Bucket& bucket);
  torch::Tensor filled(const Bucket& bucket) const;
  void check_unchanged(const Bucket& bucket) const;
  void restart();

  ProcessGroup group_;
  ShardedOptimizerOptions options_;
  std::vector<Block>& blocks_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // a block
  std::size_t next_ = 0;  // the first bucket that has not begun: the same order in every process
  bool in_backward_ = false;
};

}  // namespace trit::distributed
