// SPDX-License-Identifier: MIT
//
// An operator of the model file. One file of this folder holds all that is known of it: attributes, shape
// rule, tensors, and how it runs on a CPU and on a GPU. To add one: write its file, name it in table.cpp,
// describe it in docs/format.md, test it. Nothing else asks which operator a node is.
//
// A step of a program is one operator, and the ReLU and the pool behind it (fusion.h). lower_on_cpu() and
// lower_on_gpu() add what computes the operator to a program. Who builds the program adds ReLU and pool then,
// unless they have done so and taken them out of the step. Only ReLU and pools define neither: alone in a
// step, they give its input back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/strict_json.h"
#include "runtime/rotated_inputs.h"
#include "trit/format.h"
#include "trit/linear.h"
#include "trit/model.h"

namespace trit::runtime {

using Shape = std::vector<std::int64_t>;

class NodeFile;
class ProgramBuilder;
class TensorSource;
struct CpuLibraries;
struct Step;
struct Value;
namespace gpu {
class ProgramBuilder;
class Weights;
struct Result;
}  // namespace gpu

/// Windows of kernel x kernel inside an image.
struct Pool {
  std::int64_t kernel;
  std::int64_t stride;
  bool maximum;  // else the mean
};

/// One node's: made from its JSON, given its tensors by load(), and prepared for one machine.
class Operator {
 public:
  virtual ~Operator() = default;

  /// Reads the node's tensors and returns the shape of its result, without the batch. Throws Error.
  virtual Shape load(NodeFile& file) = 0;

  /// Where the inputs are indexes, how many values they may have: whole numbers from 0 on. They are checked
  /// before a run, so no step meets another. 0: any input will do.
  virtual std::int64_t index_limit() const { return 0; }

  // What fusion.h asks.
  virtual bool is_relu() const { return false; }
  /// Null for what is no pool.
  virtual const Pool* pool() const { return nullptr; }
  /// Makes this operator a part of `before`, whose result nobody else reads; false if it must run by itself.
  virtual bool fold_into(Operator& /*before*/) { return false; }
  /// Multiplies each output channel by `scale` and adds `shift`; false, and nothing done, if that is
  /// impossible or changes where a NaN or an infinity comes out.
  virtual bool fold_scale_shift(std::span<const float> /*scale*/, std::span<const float> /*shift*/) {
    return false;
  }

  /// The ternary matrix; its codes point into the file. The engine checks it, and the CPU's returns it
  /// prepared, all of a model together (PackedLinear::checked).
  virtual std::optional<TernaryView> ternary_matrix() const { return std::nullopt; }
  virtual void take_ternary(PackedLinear /*weight*/) {}

  // The CPU.
  /// Gives the float weights to the library that multiplies by them.
  virtual void prepare(const CpuLibraries& /*libraries*/) {}
  virtual Value lower_on_cpu(ProgramBuilder& builder, Step& step) const;
  /// Whether the inputs are wanted row-major (program.h).
  virtual bool reads_rows() const { return false; }

  // The GPU; a build without CUDA calls neither.
  /// Copies the tensors to the GPU. Called twice: the first time counts the bytes.
  virtual void upload(gpu::Weights& /*weights*/) {}
  virtual gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const;
};

/// A row of the table.
struct OperatorType {
  std::string_view name;  // "conv2d", as in the file
  std::size_t inputs = 1;
  bool has_tensors = false;  // its nodes have a name
  /// Reads the attributes. Throws Error.
  std::unique_ptr<Operator> (*make)(const io::JsonObject& node);
};

template <typename T>
std::unique_ptr<Operator> make_operator(const io::JsonObject& node) {
  return std::make_unique<T>(node);
}

/// All, ordered as errors list them.
std::span<const OperatorType* const> operator_types();

/// What load() sees: the shapes of the node's inputs and its tensors.
class NodeFile {
 public:
  /// `what` starts errors, `name` is the node's. All must outlive this.
  NodeFile(TensorSource& tensors, ModelRotation& rotation, const std::string& name, const std::string& what,
           std::vector<const Shape*> inputs)
      : tensors_(tensors), rotation_(rotation), name_(name), what_(what), inputs_(std::move(inputs)) {}

  const Shape& input(std::size_t index = 0) const { return *inputs_[index]; }
  /// Throws Error unless the input is [channels, height, width].
  const Shape& image() const;
  /// Positions of a window of `window` inputs. Throws Error if there is none.
  std::int64_t positions(std::int64_t length, std::int64_t window, std::int64_t stride,
                         std::int64_t padding) const;
  [[noreturn]] void refuse(const std::string& problem) const;
  /// File and node, which start errors.
  const std::string& what() const { return what_; }

  /// The tensor "<name>.<tensor>" (tensors.h).
  std::vector<float> floats(const char* tensor, const Shape& wanted);
  std::vector<float> optional_floats(const char* tensor, const Shape& wanted);
  std::span<const std::uint8_t> codes(const char* tensor, std::int64_t in);
  std::vector<float> scales(const char* tensor, std::int64_t rows, std::int64_t in, std::int64_t& group);
  Shape shape(const char* tensor);
  /// Of the matrix "<name>.<tensor>", if it is in `list`. Throws Error unless it fits rows of `width` inputs.
  RotatedInputs rotation(Rotated list, const char* tensor, std::int64_t width);
  /// A tensor that may be there and means nothing.
  void ignore(const char* tensor);

  /// For `trit info`: the shape of the weight, unpacked, makes the node a layer with weights.
  void set_layer_shape(Shape shape) { layer_.shape = std::move(shape); }
  /// What was read, without name and op.
  const LayerInfo& layer() const { return layer_; }

 private:
  /// The tensor's name; counts its bytes.
  std::string take(const char* tensor);

  TensorSource& tensors_;
  ModelRotation& rotation_;
  const std::string& name_;
  const std::string& what_;
  std::vector<const Shape*> inputs_;
  LayerInfo layer_;
};

/// Limit of kernels, strides and paddings.
inline constexpr std::int64_t kMaxWindow = 4096;

/// Product of the dimensions.
std::int64_t numel(const Shape& shape);

}  // namespace trit::runtime
