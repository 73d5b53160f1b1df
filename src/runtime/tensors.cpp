// SPDX-License-Identifier: MIT
#include "runtime/tensors.h"

#include <cmath>
#include <cstring>

#include "io/dtype.h"
#include "io/safetensors_checkpoint.h"
#include "trit/error.h"
#include "trit/format.h"

namespace trit::runtime {
namespace {

std::string wanted_text(const Shape& wanted) {
  std::string text = "[";
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    text += (i == 0 ? "" : ", ") + (wanted[i] < 0 ? "any" : std::to_string(wanted[i]));
  }
  return text + "]";
}

bool fits(std::span<const std::int64_t> shape, const Shape& wanted) {
  if (shape.size() != wanted.size()) {
    return false;
  }
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 1 || (wanted[i] >= 0 && shape[i] != wanted[i])) {
      return false;
    }
  }
  return true;
}

[[noreturn]] void refuse(const io::TensorView& tensor, const std::string& name, const std::string& wanted,
                         const std::string& what) {
  throw Error(what + ": tensor \"" + name + "\" (byte " + std::to_string(tensor.offset) + ") is " +
              tensor.dtype + " " + io::shape_text(tensor.shape) + ", wanted " + wanted);
}

[[noreturn]] void refuse(const io::TensorInfo& tensor, const std::string& name, const std::string& wanted,
                         const std::string& what) {
  throw Error(what + ": tensor \"" + name + "\" is " +
              (tensor.kind == io::TensorKind::ternary ? "ternary" : std::string(tensor.type)) + " " +
              io::shape_text(tensor.shape) + ", wanted " + wanted);
}

/// Data in a file need not be aligned to its element.
std::vector<float> to_floats(const io::TensorView& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
  if (tensor.dtype == "F32") {
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }
  const auto convert = tensor.dtype == "F16" ? float16_to_float : bfloat16_to_float;
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, tensor.data.data() + 2 * i, 2);
    values[i] = convert(bits);
  }
  return values;
}

void check_finite(std::span<const float> values, const io::TensorView& tensor, const std::string& name,
                  const std::string& what) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      throw Error(what + ": tensor \"" + name + "\" (byte " + std::to_string(tensor.offset) + "): value " +
                  std::to_string(i) + " is " + std::to_string(values[i]) + ", wanted finite values");
    }
  }
}

}  // namespace

const io::TensorView& Tensors::at(const std::string& name, const std::string& what) {
  if (!file_.contains(name)) {
    throw Error(what + ": no tensor \"" + name + "\" in the file");
  }
  used_.insert(name);
  return file_.at(name);
}

std::vector<float> Tensors::floats(const std::string& name, const Shape& wanted, const std::string& what) {
  const io::TensorView& tensor = at(name, what);
  if ((tensor.dtype != "F32" && tensor.dtype != "F16" && tensor.dtype != "BF16") ||
      !fits(tensor.shape, wanted)) {
    refuse(tensor, name, "F32, F16 or BF16 " + wanted_text(wanted), what);
  }
  std::vector<float> values = to_floats(tensor);
  check_finite(values, tensor, name, what);
  return values;
}

std::span<const std::uint8_t> Tensors::codes(const std::string& name, std::int64_t in,
                                             const std::string& what) {
  const io::TensorView& tensor = at(name, what);
  if (tensor.dtype.find('F') != std::string::npos) {
    throw Error(what + ": tensor \"" + name + "\" is float (" + tensor.dtype +
                "), wanted it packed: `trit pack` does that");
  }
  const Shape wanted{-1, packed_row_bytes(in)};
  if (tensor.dtype != "U8" || !fits(tensor.shape, wanted)) {
    refuse(tensor, name, "U8 " + wanted_text(wanted), what);
  }
  return {reinterpret_cast<const std::uint8_t*>(tensor.data.data()), tensor.data.size()};
}

std::vector<float> Tensors::scales(const std::string& name, std::int64_t rows, std::int64_t in,
                                   std::int64_t& group, const std::string& what) {
  const io::TensorView& tensor = at(name, what);
  group = tensor.shape.size() == 2 ? io::stored_group(file_) : 0;
  if (group != 0) {
    const Shape wanted{rows, groups_of(in, group)};
    if ((tensor.dtype != "F32" && tensor.dtype != "F16") || !fits(tensor.shape, wanted)) {
      refuse(tensor, name,
             "F32 or F16 " + wanted_text(wanted) + ", since \"trit.group\" is " + std::to_string(group),
             what);
    }
    return to_floats(tensor);
  }
  if (tensor.dtype != "F32" || (!fits(tensor.shape, {1}) && !fits(tensor.shape, {rows}))) {
    refuse(tensor, name,
           "F32 [1] or [" + std::to_string(rows) + "]" +
               (tensor.shape.size() == 2 ? ", or metadata \"trit.group\" with the inputs of a group" : ""),
           what);
  }
  return to_floats(tensor);
}

Shape Tensors::shape(const std::string& name, const std::string& what) {
  const auto& shape = at(name, what).shape;
  return {shape.begin(), shape.end()};
}

std::size_t Tensors::stored_bytes(const std::string& name) const {
  return file_.contains(name) ? file_.at(name).data.size() : 0;
}

void Tensors::check_all_used() const {
  for (const auto& [name, tensor] : file_.tensors()) {
    if (!used_.contains(name)) {
      throw Error(file_.path().string() + ": tensor \"" + name + "\" (byte " + std::to_string(tensor.offset) +
                  ") belongs to no node of the model");
    }
  }
}

const io::TensorInfo& TensorHeaders::at(const std::string& name, const std::string& what) {
  const io::TensorInfo* const tensor = checkpoint_.find(name);
  if (tensor == nullptr) {
    throw Error(what + ": no tensor \"" + name + "\" in the file");
  }
  used_.insert(name);
  return *tensor;
}

Shape TensorHeaders::shape(const std::string& name, const std::string& what) {
  const auto& shape = at(name, what).shape;
  return {shape.begin(), shape.end()};
}

std::vector<float> TensorHeaders::floats(const std::string& name, const Shape& wanted,
                                         const std::string& what) {
  const io::TensorInfo& tensor = at(name, what);
  const bool known = tensor.type == "F32" || tensor.type == "F16" || tensor.type == "BF16";
  if (tensor.kind != io::TensorKind::floating || !known || !fits(tensor.shape, wanted)) {
    refuse(tensor, name, "F32, F16 or BF16 " + wanted_text(wanted), what);
  }
  return {};
}

std::span<const std::uint8_t> TensorHeaders::codes(const std::string& name, std::int64_t in,
                                                   const std::string& what) {
  const io::TensorInfo& tensor = at(name, what);
  if (const Shape wanted{-1, in}; tensor.kind != io::TensorKind::ternary || !fits(tensor.shape, wanted)) {
    refuse(tensor, name, "a ternary matrix " + wanted_text(wanted), what);
  }
  return {};
}

void TensorHeaders::check_all_used() const {
  for (const io::TensorInfo& tensor : checkpoint_.tensors()) {
    if (!used_.contains(tensor.name)) {
      throw Error(checkpoint_.path().string() + ": tensor \"" + std::string(tensor.name) +
                  "\" belongs to no node of the model");
    }
  }
}

}  // namespace trit::runtime
