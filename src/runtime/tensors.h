// SPDX-License-Identifier: MIT
//
// Tensors of a model file, checked against what their node wants.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "runtime/ops/operator.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::runtime {

/// The tensors that a network is made of; remembers which were asked for. Errors start with `what`.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  /// F32, F16 or BF16 to float. Throws Error if it is missing, of another dtype or shape, or holds NaN or an
  /// infinity. A shape in `wanted` may leave dimensions open with -1.
  virtual std::vector<float> floats(const std::string& name, const Shape& wanted,
                                    const std::string& what) = 0;
  /// Packed codes of rows of `in` weights: the bytes of a U8 tensor [rows, packed_row_bytes(in)].
  virtual std::span<const std::uint8_t> codes(const std::string& name, std::int64_t in,
                                              const std::string& what) = 0;
  /// Float32 [1] or [rows], as stored: the scales belong to the bit contract, so no other type will do. Or, in
  /// a file with the metadata "trit.group", float32 or float16 [rows, groups of `in`], which float32 holds
  /// exactly; `group` is then the inputs of a group, else 0.
  virtual std::vector<float> scales(const std::string& name, std::int64_t rows, std::int64_t in,
                                    std::int64_t& group, const std::string& what) = 0;

  virtual bool contains(const std::string& name) const = 0;
  /// The shape of a tensor, which may be of any type.
  virtual Shape shape(const std::string& name, const std::string& what) = 0;
  /// Bytes in the file; 0 if absent.
  virtual std::size_t stored_bytes(const std::string& name) const = 0;
  /// Throws Error naming a tensor that nobody asked for: a damaged or foreign name.
  virtual void check_all_used() const = 0;
};

/// Those of a model file.
class Tensors final : public TensorSource {
 public:
  explicit Tensors(const io::SafetensorsFile& file) : file_(file) {}

  std::vector<float> floats(const std::string& name, const Shape& wanted, const std::string& what) override;
  std::span<const std::uint8_t> codes(const std::string& name, std::int64_t in,
                                      const std::string& what) override;
  std::vector<float> scales(const std::string& name, std::int64_t rows, std::int64_t in, std::int64_t& group,
                            const std::string& what) override;
  bool contains(const std::string& name) const override { return file_.contains(name); }
  Shape shape(const std::string& name, const std::string& what) override;
  std::size_t stored_bytes(const std::string& name) const override;
  void check_all_used() const override;

 private:
  const io::TensorView& at(const std::string& name, const std::string& what);

  const io::SafetensorsFile& file_;
  std::set<std::string, std::less<>> used_;
};

/// Those of a checkpoint, by types and shapes alone: what is read stays empty.
class TensorHeaders final : public TensorSource {
 public:
  explicit TensorHeaders(const io::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  std::vector<float> floats(const std::string& name, const Shape& wanted, const std::string& what) override;
  std::span<const std::uint8_t> codes(const std::string& name, std::int64_t in,
                                      const std::string& what) override;
  /// A ternary matrix of a checkpoint has its scale.
  std::vector<float> scales(const std::string&, std::int64_t, std::int64_t, std::int64_t&,
                            const std::string&) override {
    return {};
  }
  bool contains(const std::string& name) const override { return checkpoint_.find(name) != nullptr; }
  Shape shape(const std::string& name, const std::string& what) override;
  std::size_t stored_bytes(const std::string&) const override { return 0; }
  void check_all_used() const override;

 private:
  const io::TensorInfo& at(const std::string& name, const std::string& what);

  const io::Checkpoint& checkpoint_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace trit::runtime
