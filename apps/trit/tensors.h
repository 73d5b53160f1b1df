// SPDX-License-Identifier: MIT
//
// Tensors of safetensors files as floats, and packed matrices as TernaryView.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trit/format.h"
#include "trit/safetensors.h"

namespace trit::cli {

/// Whether to_floats accepts it: F32, F16, BF16, F64.
bool is_float(std::string_view dtype);

/// The values as float32: F16 and BF16 exactly, F64 rounded. Other types are a trit::Error that names the
/// tensor.
std::vector<float> to_floats(const io::TensorView& tensor, std::string_view name);

/// A matrix in the stored form, found in a file.
struct PackedMatrix {
  TernaryView view;
  std::vector<float> scale;  // view.scale refers to it
  std::size_t scale_bytes;   // in the file
  std::vector<std::int64_t> shape =
      {};  // [N, K], or [..., N, K] of a stack of matrices, whose rows `view` has
};

/// The matrix whose codes are the tensor `name`: uint8 [N, B] with a float32 tensor "<name>_scale" of [1] or
/// [N], or a float16 or float32 one of [N, groups] with the metadata "trit.group". Nothing if the file has no
/// such pair. in_features is `in_features` if given, otherwise the metadata
/// "trit.in_features.<name>", otherwise 4 * B. Throws trit::Error for invalid codes or scales (check()).
std::optional<PackedMatrix> find_packed(const io::SafetensorsFile& file, const std::string& name,
                                        std::optional<std::int64_t> in_features = {});

/// Metadata key for the in_features of a packed matrix, needed if they are not a multiple of 4: codes [N, B]
/// leave 4B-3 .. 4B open.
std::string in_features_key(std::string_view name);

}  // namespace trit::cli
