// SPDX-License-Identifier: MIT
#include "torch_stable/tensors.h"

namespace trit::torch_stable {

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  out << torch::headeronly::toString(tensor.scalar_type()) << " [";
  for (std::int64_t i = 0; i < tensor.dim(); ++i) {
    out << (i == 0 ? "" : ", ") << tensor.size(i);
  }
  return out << "]";
}

namespace {

std::vector<std::int64_t> contiguous_strides(Sizes sizes) {
  std::vector<std::int64_t> strides(sizes.size());
  std::int64_t stride = 1;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<std::int64_t>(sizes[i], 1);
  }
  return strides;
}

}  // namespace

Tensor empty(Sizes sizes, ScalarType type, const Tensor& like) {
  const std::vector<std::int64_t> strides = contiguous_strides(sizes);
  std::int32_t device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  const auto dtype = torch::stable::detail::to<std::int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<std::int64_t>(sizes.size()), sizes.data(),
                                                  strides.data(), dtype, device, like.get_device_index(),
                                                  &handle));
  return Tensor(handle);
}

Tensor view_of(const Tensor& base, Sizes sizes, Sizes strides, std::int64_t offset) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(base.get(), static_cast<std::int64_t>(sizes.size()),
                                                        sizes.data(), strides.data(), offset, &handle));
  return Tensor(handle);
}

Tensor with_sizes(const Tensor& contiguous, Sizes sizes) {
  return view_of(contiguous, sizes, contiguous_strides(sizes));
}

TokenScales token_scales(const Tensor& scales) {
  check(scales.dim() == 2 && scales.size(0) == 2 && scales.scalar_type() == ScalarType::Float &&
            scales.is_contiguous(),
        "bit_linear_backward: wanted scales contiguous float32 [2, tokens], found ", scales);
  const std::array<std::int64_t, 1> sizes{scales.size(1)};
  const std::array<std::int64_t, 1> strides{1};
  return {view_of(scales, sizes, strides), view_of(scales, sizes, strides, scales.size(1))};
}

DataType data_type(ScalarType type, const char* what) {
  switch (type) {
    case ScalarType::Float:
      return DataType::float32;
    case ScalarType::BFloat16:
      return DataType::bfloat16;
    case ScalarType::Half:
      return DataType::float16;
    default:
      throw Error(std::string("trit: ") + what + " must be float32, bfloat16 or float16, found " +
                  torch::headeronly::toString(type));
  }
}

void check_weight(const Tensor& weight) {
  const ScalarType type = weight.scalar_type();
  check(weight.dim() == 2 && weight.size(0) >= 1 && weight.size(1) >= 1 &&
            (type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
             type == ScalarType::BFloat16),
        "bit_linear: the weight must be a float matrix [out_features >= 1, in_features >= 1], found ",
        weight);
}

void check_abs_sums(const Tensor& sums, std::int64_t in_features) {
  check(sums.dim() == 1 && sums.numel() >= 1 && sums.scalar_type() == ScalarType::Float && in_features >= 1,
        "absmean_of_sums: wanted float32 [out_features >= 1] and in_features >= 1, found ", sums, " and ",
        in_features);
}

void check_codes(const Tensor& codes, std::int64_t in_features) {
  check(codes.dim() == 2 && codes.scalar_type() == ScalarType::Byte && codes.size(0) >= 1 &&
            in_features >= 1 && codes.size(1) == packed_row_bytes(in_features),
        "codes must be uint8 [out_features, ceil(in_features / 4)] with in_features = ", in_features,
        ", found ", codes);
}

ScaleGranularity granularity_of(const Tensor& scale, std::int64_t out_features) {
  check(scale.dim() == 1 && (scale.size(0) == 1 || scale.size(0) == out_features),
        "the weight's scale must be [1] or [", out_features, "], found ", scale);
  return scale.size(0) == 1 ? ScaleGranularity::tensor : ScaleGranularity::row;
}

ScaleGranularity granularity_of(const Tensor& scale, std::int64_t out_features, std::int64_t in_features,
                                std::int64_t group) {
  if (group == 0) {
    return granularity_of(scale, out_features);
  }
  check_group(group);
  const std::int64_t groups = groups_of(in_features, group);
  check(scale.dim() == 2 && scale.size(0) == out_features && scale.size(1) == groups,
        "the weight's scale must be [", out_features, ", ", groups, "] for groups of ", group,
        " inputs, found ", scale);
  return ScaleGranularity::group;
}

void check_group(std::int64_t group) {
  check(group == 0 || is_group_size(group), "groups of ", group,
        " inputs share a weight scale, wanted a multiple of ", kGroupStep, ", or 0 for none");
}

StoredWeight stored_weight(const Tensor& codes, const Tensor& scale, std::int64_t in_features,
                           std::int64_t group) {
  check_codes(codes, in_features);
  StoredWeight stored{as_contiguous(codes), as_float(scale), {}};
  granularity_of(stored.scale, codes.size(0), in_features, group);
  stored.view = torch_layer::ternary_view(codes.size(0), in_features, const_data<std::uint8_t>(stored.codes),
                                          floats(stored.scale), stored.scale.numel(), group);
  return stored;
}

StoredWeight stored_to_prepare(const Tensor& codes, std::int64_t in_features,
                               const optional<Tensor>& weight_scale, std::int64_t group) {
  if (group != 0) {
    check(weight_scale.has_value(), "prepare: wanted weight_scale with groups of ", group, " inputs");
    // checked: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    return stored_weight(codes, *weight_scale, in_features, group);
  }
  check_codes(codes, in_features);
  StoredWeight stored{as_contiguous(codes), {}, {}};
  stored.view = torch_layer::ternary_view(codes.size(0), in_features, const_data<std::uint8_t>(stored.codes),
                                          nullptr, 0, 0);
  return stored;
}

void check_vector(const optional<Tensor>& vector, std::int64_t size, const char* what) {
  if (vector) {
    check(vector->dim() == 1 && vector->size(0) == size, what, " must be [", size, "], found ", *vector);
  }
}

void check_quantized(const Tensor& q, const Tensor& scale, std::int64_t q_width) {
  check(q.dim() == 2 && q.scalar_type() == ScalarType::Char && q.size(1) == q_width &&
            scale.scalar_type() == ScalarType::Float && scale.dim() == 1 && scale.size(0) == q.size(0),
        "packed_linear: wanted q int8 [tokens, ", q_width, "] and scale float32 [tokens]; found ", q, ", ",
        scale);
}

void check_gradient(const Tensor& grad, std::int64_t out_features) {
  check(grad.dim() == 2 && grad.size(1) == out_features, "linear_backward: grad must be [tokens, ",
        out_features, "], found ", grad);
  data_type(grad.scalar_type(), "grad");
}

void check_weight_gradient(const Tensor& grad, const Tensor& x) {
  check(grad.dim() == 2 && x.dim() == 2 && grad.size(0) == x.size(0) && grad.scalar_type() == x.scalar_type(),
        "linear_backward_weight: grad is ", grad, " and x ", x, ", wanted as many rows in both, of one type");
  data_type(grad.scalar_type(), "grad");
}

void check_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd) {
  bool fits = grad.dim() == x.dim() && x.dim() >= 1 && rstd.numel() * x.size(-1) == x.numel();
  for (std::int64_t i = 0; fits && i < x.dim(); ++i) {
    fits = grad.size(i) == x.size(i);
  }
  check(fits, "rms_norm_backward: grad ", grad, ", x ", x, " and rstd ", rstd, " do not fit together");
}

Rows rows_of(const Tensor& x) {
  check(x.dim() >= 1 && x.size(-1) >= 1, "norm_quant: x must be [..., in_features >= 1], found ", x);
  const std::int64_t features = x.size(-1);
  const std::int64_t count = x.numel() / features;
  if (x.is_contiguous()) {
    return {x, count, features, features};
  }
  const std::array<std::int64_t, 2> shape{count, features};
  const Tensor rows = x.dim() == 2 ? x : torch::stable::reshape(x, shape);
  if (rows.stride(1) == 1 && rows.stride(0) >= features) {
    return {rows, count, features, rows.stride(0)};
  }
  return {torch::stable::contiguous(rows), count, features, features};
}

torch_layer::RowsView Rows::view() const {
  return {x.const_data_ptr(), data_type(x.scalar_type(), "x"), count, features, stride};
}

Tensor as_matrix(const Tensor& x) {
  const std::int64_t features = x.size(-1);
  const std::array<std::int64_t, 2> shape{features == 0 ? 0 : x.numel() / features, features};
  if (x.dim() == 2) {
    return as_contiguous(x);
  }
  return x.is_contiguous() ? with_sizes(x, shape) : as_contiguous(torch::stable::reshape(x, shape));
}

std::vector<std::int64_t> sizes_with_last(const Tensor& x, std::int64_t last) {
  const auto sizes = x.sizes();
  std::vector<std::int64_t> result(sizes.begin(), sizes.end());
  result.back() = last;
  return result;
}

int TorchParallel::threads() const { return static_cast<int>(torch::stable::get_num_threads()); }

void TorchParallel::run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) {
  // Grain 1: the kernels cut their work into tasks that are worth a thread each.
  torch::stable::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
    const DefaultFloatingPoint environment;
    for (std::int64_t i = begin; i < end; ++i) {
      task(i);
    }
  });
}

}  // namespace trit::torch_stable
