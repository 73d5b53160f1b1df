// SPDX-License-Identifier: MIT
//
// The keys "prism.hadamard.*" of a GGUF file, and of the hadamard.json beside a safetensors file: which weights
// a Hadamard rotation was folded into (trit/io.h, Rotation). Readers turn them into JSON text in the metadata
// kRotationKey, which travels with the model.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/gguf.h"
#include "trit/io.h"

namespace trit::io {

inline constexpr std::string_view kRotationPrefix = "prism.hadamard.";
inline constexpr std::string_view kRotationTransform = "normalized-sylvester-walsh-hadamard";
inline constexpr std::string_view kRotationAxis = "input-last-dimension";
inline constexpr std::size_t kMaxRotationBytes = std::size_t{64} << 20;  // of the JSON text

/// The rotation that a file's pairs describe, or nothing. Errors as rotation_of().
std::optional<Rotation> rotation_of(std::span<const GgufPair> pairs, const std::string& what);
/// As JSON text: the same rotation gives the same text.
std::string rotation_text(const Rotation& rotation);
/// The pairs of a GGUF file that say the same; returns their number.
std::uint64_t write_rotation(const Rotation& rotation, gguf::ByteWriter& header);

/// With hadamard.json of `folder`, if there is one and the metadata have no rotation yet.
void add_rotation_file(Metadata& metadata, const std::filesystem::path& folder);

/// Throws Error, starting with `what` and naming the key, unless the model has all the matrices that the
/// rotation names, and it fits the number of inputs of each. Returns for the description: ", rotated weights
/// (prism.hadamard, blocks of 1024)", or nothing without a rotation.
std::string check_rotation(const Metadata& metadata, std::span<const TensorInfo> tensors,
                           const std::string& what);

/// Throws Error, starting with `what` and naming the key, unless the rotation fits the inputs of the matrix.
void check_width(const Rotation& rotation, const std::string& matrix, std::int64_t width,
                 const std::string& what);

/// The metadata with the new names of matrices; those without one are left out, and with the last of them the
/// rotation.
void rename_rotation(Metadata& metadata,
                     const std::function<std::optional<std::string>(std::string_view name)>& rename);

}  // namespace trit::io
