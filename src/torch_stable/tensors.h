// SPDX-License-Identifier: MIT
//
// Tensors of LibTorch's stable ABI as the operators of every device use them: checks, conversions, memory.
// Nothing here includes ATen, so one library works with every torch from TORCH_TARGET_VERSION on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "torch/layer.h"
#include "trit/error.h"
#include "trit/format.h"
#include "trit/parallel.h"
#include "trit/quantize.h"

namespace trit::torch_stable {

using std::optional;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

/// "Float [2, 3]"
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

/// Throws Error of the parts' text unless `condition` holds. A tensor is a part as it is: text made before it is
/// needed costs a call 2 us.
template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) {
    std::ostringstream message;
    message << "trit::";
    ((message << parts), ...);
    throw Error(message.str());
  }
}

/// at::<name> through the dispatcher, for what stable/ops.h lacks.
template <typename... Arguments>
Tensor call(const char* name, const char* overload, const Arguments&... arguments) {
  std::array<StableIValue, sizeof...(Arguments)> stack{torch::stable::detail::from(arguments)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

/// A new contiguous tensor on the device of `like`.
Tensor empty(Sizes sizes, ScalarType type, const Tensor& like);
inline Tensor empty(std::initializer_list<std::int64_t> sizes, ScalarType type, const Tensor& like) {
  return empty(Sizes(sizes.begin(), sizes.size()), type, like);
}
/// A tensor on the memory of `base`, `offset` elements behind its first. Views through the dispatcher cost the host
/// 3 us each.
Tensor view_of(const Tensor& base, Sizes sizes, Sizes strides, std::int64_t offset = 0);
/// The same elements in other sizes, of a contiguous tensor.
Tensor with_sizes(const Tensor& contiguous, Sizes sizes);
inline Tensor transposed(const Tensor& matrix) {
  const std::array<std::int64_t, 2> sizes{matrix.size(1), matrix.size(0)};
  const std::array<std::int64_t, 2> strides{matrix.stride(1), matrix.stride(0)};
  return view_of(matrix, sizes, strides);
}
/// [rows, columns] of a matrix from an element on.
inline Tensor part_of(const Tensor& matrix, std::int64_t rows, std::int64_t columns,
                      std::int64_t first_row = 0, std::int64_t first_column = 0) {
  const std::array<std::int64_t, 2> sizes{rows, columns};
  const std::array<std::int64_t, 2> strides{matrix.stride(0), matrix.stride(1)};
  return view_of(matrix, sizes, strides, first_row * strides[0] + first_column * strides[1]);
}
/// A vector as a matrix of one column.
inline Tensor as_column(const Tensor& vector) {
  const std::array<std::int64_t, 2> sizes{vector.size(0), 1};
  const std::array<std::int64_t, 2> strides{vector.stride(0), 1};
  return view_of(vector, sizes, strides);
}
/// What an operator returns for a gradient that nobody wants: [0] of `like`'s type.
inline Tensor no_gradient(const Tensor& like) { return empty({0}, like.scalar_type(), like); }

/// Of the type, contiguous or not; the tensor itself where it has that type already.
inline Tensor as_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}
/// float32, contiguous: what the kernels take for weights, scales and biases.
inline Tensor as_float(const Tensor& tensor) { return as_contiguous(as_type(tensor, ScalarType::Float)); }
inline optional<Tensor> as_float(const optional<Tensor>& tensor) {
  return tensor && tensor->defined() ? optional<Tensor>(as_float(*tensor)) : std::nullopt;
}
inline const float* floats(const Tensor& tensor) {
  return static_cast<const float*>(tensor.const_data_ptr());
}
inline const float* floats(const optional<Tensor>& tensor) { return tensor ? floats(*tensor) : nullptr; }
template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}
template <typename T>
const T* const_data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
inline std::size_t bytes_of(const Tensor& tensor) {
  return static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
}

/// The kernels' name of a type; `what` names the tensor in the error.
DataType data_type(ScalarType type, const char* what);

// Each throws Error that says what was found and what is wanted.
void check_weight(const Tensor& weight);
void check_codes(const Tensor& codes, std::int64_t in_features);
void check_abs_sums(const Tensor& sums, std::int64_t in_features);
ScaleGranularity granularity_of(const Tensor& scale, std::int64_t out_features);
/// `group`: inputs that share a scale, or 0 where there is one or one per row.
ScaleGranularity granularity_of(const Tensor& scale, std::int64_t out_features, std::int64_t in_features,
                                std::int64_t group);
void check_group(std::int64_t group);
void check_vector(const optional<Tensor>& vector, std::int64_t size, const char* what);
/// `q_width`: bytes of a row of q on the device.
void check_quantized(const Tensor& q, const Tensor& scale, std::int64_t q_width);
void check_gradient(const Tensor& grad, std::int64_t out_features);
/// grad [M, N] and x [M, K] of one type.
void check_weight_gradient(const Tensor& grad, const Tensor& x);
void check_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd);

/// The stored form as contiguous tensors; the view refers to them. Throws Error unless they fit.
struct StoredWeight {
  Tensor codes;
  Tensor scale;
  TernaryView view;
};
StoredWeight stored_weight(const Tensor& codes, const Tensor& scale, std::int64_t in_features,
                           std::int64_t group);
/// What trit_stable::prepare reads: the codes, and scales of groups alone.
StoredWeight stored_to_prepare(const Tensor& codes, std::int64_t in_features,
                               const optional<Tensor>& weight_scale, std::int64_t group);

/// x [..., K] as rows of K: side by side or further apart; anything else (transposed, expanded) is copied.
struct Rows {
  Tensor x;  // keeps a copy alive
  std::int64_t count;
  std::int64_t features;
  std::int64_t stride;  // elements between rows

  torch_layer::RowsView view() const;
};
Rows rows_of(const Tensor& x);
/// x [..., K] as [M, K], contiguous.
Tensor as_matrix(const Tensor& x);
/// What a recorded forward keeps of its tokens: float32 [2, M], s and then r. One tensor, since a tensor that an
/// operator returns and autograd saves costs the host 4 us.
struct TokenScales {
  Tensor scale;  // [M]
  Tensor rstd;   // [M]
};
TokenScales token_scales(const Tensor& scales);
/// The sizes of x with another last one.
std::vector<std::int64_t> sizes_with_last(const Tensor& x, std::int64_t last);

/// at::parallel_for as a trit::Parallel: LibTorch's own threads, so that torch.set_num_threads() counts.
class TorchParallel final : public Parallel {
 public:
  int threads() const override;
  void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) override;
};

}  // namespace trit::torch_stable
