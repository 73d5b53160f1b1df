// SPDX-License-Identifier: MIT
//
// The checkpoint that `trit pack` writes, computed while it is read: float matrices become ternary a few rows
// at a time, on all threads, so that a model larger than the memory can be packed.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "common/scale_option.h"
#include "pack_plan.h"
#include "trit/io.h"
#include "trit/linear.h"

namespace trit::cli {

class PackedModel final : public io::Checkpoint {
 public:
  /// `source` and `plan` must outlive it. `read` is called with the number of bytes of `source` that were read
  /// since the last call. Every packed matrix is read twice, for its scale and for its codes.
  PackedModel(const io::Checkpoint& source, const PackPlan& plan, const apps::Scales& scales,
              std::function<void(std::uint64_t bytes)> read);

  /// The sum of all values that `read` gets.
  std::uint64_t bytes_to_read() const;

  std::int64_t group(const io::TensorInfo& tensor) const override;
  void read_group_scales(const io::TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                         std::span<float> scales) const override;
  // Error that names the tensor and the place of a NaN or an infinity.
  std::vector<float> scale(const io::TensorInfo& tensor) const override;
  void read_codes(const io::TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> codes) const override;
  void read_elements(const io::TensorInfo& tensor, std::int64_t first,
                     std::span<std::byte> bytes) const override;
  void release(const io::TensorInfo& tensor) const override;

 private:
  const io::TensorInfo& original(const io::TensorInfo& tensor) const {
    return source_.tensors()[tensor.index];
  }
  bool is_packed(const io::TensorInfo& tensor) const;
  bool is_converted(const io::TensorInfo& tensor) const;
  /// Calls body(values [K], row) for `rows` rows, on all threads. Error for a value that is not finite.
  void for_rows(const io::TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                const std::function<void(std::span<const float> values, std::int64_t row)>& body) const;
  std::vector<float> compute_scale(const io::TensorInfo& tensor) const;
  /// The same, computed once.
  const std::vector<float>& computed_scale(const io::TensorInfo& tensor) const;
  /// The weights of a row that share scale g; all of them without groups.
  std::span<const float> group_of(std::span<const float> row, std::int64_t g) const;

  const io::Checkpoint& source_;
  const PackPlan& plan_;
  apps::Scales kind_;
  std::function<void(std::uint64_t)> read_;
  const CpuKernels& kernels_ = cpu_kernels_for(Backend::automatic);
  std::unique_ptr<Parallel> parallel_ = make_parallel();
  mutable std::map<std::size_t, std::vector<float>> scales_;
};

}  // namespace trit::cli
