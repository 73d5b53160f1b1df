// SPDX-License-Identifier: MIT
//
// The operators of the Python package: schemas, and those that need no device. Their namespace is not that
// of src/torch, so that a process may load both. A weight is a uint8 tensor here, packed or prepared:
// opaque classes in a schema break torch.compile and torch.export. Autograd, autocast and the shapes that
// torch.compile sees are in python/trit/ops.py.
//
// M tokens, N = out_features, K = in_features; `scales` are TokenScales (tensors.h). A gradient that is not
// wanted is returned as [0].
#include "torch_stable/tensors.h"
#include "trit/backend.h"
#include "trit/crc32c.h"
#include "trit/prepared.h"
#include "trit/version.h"

namespace trit::torch_stable {
namespace {

// What Python asks once, a line each: "version 0.2.0", "backends scalar avx2", "backend avx2", "cuda 0",
// "panel_rows 32", "panel_bytes 32" (of 4 inputs), from which it knows the size of a prepared weight.
std::string build_info() {
  const CpuKernels& kernels = cpu_kernels_for(Backend::automatic);
  std::string text = "version " TRIT_VERSION "\nbackends";
  for (const std::string& name : available_backends()) {
    text += " " + name;
  }
  text += "\nbackend " + std::string(name_of(backend_of(kernels)));
#if TRIT_TORCH_STABLE_CUDA
  text += "\ncuda 1";
#else
  text += "\ncuda 0";
#endif
  const auto bytes = [&](std::int64_t rows) {
    return prepared_bytes(kernels, PanelFormat::two_bit, rows, 4) - kPreparedAlignment;
  };
  std::int64_t panel_rows = 1;
  while (bytes(panel_rows + 1) == bytes(1)) {
    ++panel_rows;
  }
  text += "\npanel_rows " + std::to_string(panel_rows) + "\npanel_bytes " + std::to_string(bytes(1));
  return text;
}

std::int64_t crc32c_of(const Tensor& bytes, std::int64_t crc) {
  check(bytes.is_contiguous(), "crc32c: wanted contiguous bytes, found ", bytes);
  return crc32c({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes_of(bytes)},
                static_cast<std::uint32_t>(crc));
}

void check_stored(const Tensor& codes, const Tensor& scale, std::int64_t in_features, const std::string& name,
                  std::int64_t group) {
  trit::check(stored_weight(codes, scale, in_features, group).view, name);
}

}  // namespace

STABLE_TORCH_LIBRARY(trit_stable, m) {
  m.def(
      "norm_quant(Tensor x, Tensor? norm_weight, bool rms, float eps, bool wants_sum=True) -> "
      "(Tensor q, Tensor scale, Tensor rstd, Tensor q_sum)");
  m.def("absmean(Tensor weight, bool per_row, int group=0) -> Tensor");
  m.def("abs_sums(Tensor weight) -> Tensor");
  m.def("absmean_of_sums(Tensor sums, SymInt in_features) -> Tensor");
  m.def("ternarize_pack(Tensor weight, Tensor scale, int group=0) -> Tensor");
  m.def(
      "dequantize(Tensor codes, Tensor scale, SymInt in_features, ScalarType dtype, int group=0) -> Tensor");
  m.def("prepare(Tensor codes, SymInt in_features, Tensor? weight_scale=None, int group=0) -> Tensor");
  m.def(
      "pack_weight(Tensor weight, bool per_row, int group=0) -> "
      "(Tensor codes, Tensor weight_scale, Tensor prepared)");
  m.def("dequantize_tokens(Tensor q, Tensor scale, SymInt in_features, ScalarType dtype) -> Tensor");
  m.def(
      "packed_linear(Tensor q, Tensor scale, Tensor q_sum, Tensor codes, Tensor weight_scale, "
      "SymInt in_features, Tensor? bias, ScalarType dtype, int group=0) -> Tensor");
  m.def(
      "prepared_linear(Tensor q, Tensor scale, Tensor q_sum, Tensor prepared, Tensor weight_scale, "
      "SymInt out_features, SymInt in_features, Tensor? bias, ScalarType dtype, int group=0) -> Tensor");
  m.def(
      "bit_linear_prepared(Tensor x, Tensor prepared, Tensor weight_scale, SymInt out_features, "
      "SymInt in_features, Tensor? bias, Tensor? norm_weight, bool rms, float eps, int group=0) -> Tensor");
  m.def(
      "bit_linear_train(Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, bool rms, float eps, "
      "bool per_row, int group=0) -> "
      "(Tensor y, Tensor q, Tensor scales, Tensor codes, Tensor weight_scale)");
  m.def(
      "bit_linear_train_codes(Tensor x, Tensor codes, Tensor weight_scale, SymInt in_features, Tensor? bias, "
      "Tensor? norm_weight, bool rms, float eps, int group=0) -> (Tensor y, Tensor q, Tensor scales)");
  m.def(
      "bit_linear_backward(Tensor grad, Tensor? x, Tensor? norm_weight, Tensor q, Tensor scales, Tensor "
      "codes, Tensor weight_scale, SymInt in_features, ScalarType weight_dtype, bool rms, bool wants_x, "
      "bool wants_weight, bool wants_norm_weight, int group=0) -> (Tensor grad_x, Tensor grad_weight, Tensor "
      "grad_norm_weight)");
  m.def(
      "bit_linear_backward_int8(Tensor grad, Tensor? x, Tensor? norm_weight, Tensor q, Tensor scales, Tensor "
      "codes, Tensor weight_scale, SymInt in_features, ScalarType weight_dtype, bool rms, bool "
      "wants_x, bool wants_weight, bool wants_norm_weight, bool int8_weight, Tensor? rounding=None) -> "
      "(Tensor "
      "grad_x, Tensor grad_weight, Tensor grad_norm_weight)");
  m.def(
      "linear_backward_int8(Tensor grad, Tensor q, Tensor scale, Tensor codes, Tensor weight_scale, SymInt "
      "in_features, ScalarType weight_dtype, bool wants_x, bool wants_weight, Tensor? rounding=None) -> "
      "(Tensor grad_x, Tensor grad_weight)");
  m.def(
      "linear_backward_input(Tensor grad, Tensor codes, Tensor weight_scale, SymInt in_features, int "
      "group=0) "
      "-> Tensor");
  m.def(
      "linear_backward_weight(Tensor grad, Tensor q, Tensor scale, SymInt in_features, ScalarType dtype) -> "
      "Tensor");
  m.def("linear_backward_weight_float(Tensor grad, Tensor x, ScalarType dtype) -> Tensor");
  m.def("rms_norm(Tensor x, Tensor? weight, float eps) -> (Tensor y, Tensor rstd)");
  m.def(
      "rms_norm_backward(Tensor grad, Tensor x, Tensor rstd, Tensor? weight, bool wants_x, "
      "bool wants_weight) -> (Tensor grad_x, Tensor grad_weight)");
  m.def("crc32c(Tensor bytes, int crc) -> int");
  m.def("check_stored(Tensor codes, Tensor scale, int in_features, str name, int group=0) -> ()");
  m.def("build_info() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CPU, m) {
  m.impl("crc32c", TORCH_BOX(&crc32c_of));
  m.impl("check_stored", TORCH_BOX(&check_stored));
}

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CompositeExplicitAutograd, m) {
  m.impl("build_info", TORCH_BOX(&build_info));
}

}  // namespace trit::torch_stable
