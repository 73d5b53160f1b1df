// SPDX-License-Identifier: MIT
//
// Model files for the tests: a builder that draws the tensors, and the naive reference of a whole graph.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "trit/format.h"
#include "trit/quantize.h"
#include "trit/safetensors.h"

namespace trit::test {

using Shape = std::vector<std::int64_t>;
using Metadata = std::map<std::string, std::string, std::less<>>;

/// A tensor with its bytes.
struct OwnedTensor {
  std::string name, dtype;
  Shape shape;
  std::vector<std::byte> data;
};

/// A value and how far a fp32 result may be from it: the sums of each layer in any order, each operation
/// rounded once, errors of earlier layers carried along (running error analysis; Higham, Accuracy and
/// Stability, 3.3).
struct Bounded {
  double value = 0;
  double error = 0;
};

class ModelFile {
 public:
  explicit ModelFile(Shape input_shape, unsigned seed = 1);

  // Each adds a node and returns its index. Inputs are node indexes.
  std::size_t conv2d(const std::string& name, std::size_t input, std::int64_t in, std::int64_t out,
                     std::int64_t kernel, std::int64_t stride, std::int64_t padding, bool bias = true);
  std::size_t linear(const std::string& name, std::size_t input, std::int64_t in, std::int64_t out,
                     bool bias = true);
  std::size_t bit_linear(const std::string& name, std::size_t input, std::int64_t in, std::int64_t out,
                         Norm norm, bool bias = false, ScaleGranularity scale = ScaleGranularity::tensor,
                         std::int64_t group = 0);
  /// Of the model's input. Row-major [rows, features].
  std::size_t embedding(const std::string& name, std::int64_t rows, std::int64_t features,
                        ScaleGranularity scale = ScaleGranularity::tensor, std::int64_t group = 0);
  std::size_t pool(const std::string& op, std::size_t input, std::int64_t kernel, std::int64_t stride);
  std::size_t relu(std::size_t input);
  /// `approximate`: "none" or "tanh".
  std::size_t gelu(std::size_t input, const std::string& approximate);
  std::size_t batch_norm(const std::string& name, std::size_t input, std::int64_t channels);
  std::size_t add(std::size_t a, std::size_t b);
  std::size_t flatten(std::size_t input);

  void save(const std::filesystem::path& path) const;
  OwnedTensor& tensor(const std::string& name);
  std::vector<float> floats(const std::string& name) const;
  void set_floats(const std::string& name, const Shape& shape, const std::vector<float>& values);
  bool has(const std::string& name) const;
  void erase(const std::string& name);

  /// The graph on one image in double precision, for graphs without bit_linear. A product of a convolution
  /// may be wrong by `product_error` relative to its size.
  std::vector<Bounded> reference(const std::vector<float>& x, double product_error = 0) const;
  /// One bit_linear node on one row, by the scalar definition.
  std::vector<float> bit_linear_reference(const std::string& name, const std::vector<float>& x) const;

  std::vector<float> random(std::size_t count, float low, float high);
  /// Of a rotation, each +1 or -1.
  std::vector<std::int8_t> random_signs(std::size_t count);
  /// The metadata of rotated matrices: signs of one width, or none.
  void rotate(std::int64_t block, const std::vector<std::int8_t>& signs,
              const std::vector<std::string>& weights, const std::vector<std::string>& look_ups);

  nlohmann::json graph;
  Metadata metadata;
  std::vector<OwnedTensor> tensors;

 private:
  std::size_t add_node(nlohmann::json node);
  /// The matrix "<name>.weight" and its scales.
  void add_ternary(const std::string& name, std::int64_t out, std::int64_t in, ScaleGranularity scale,
                   std::int64_t group);
  std::mt19937 generator_;
};

/// The network that this project trains: 3x32x32, two convolutions, bit_linear 4096 -> 512 -> 10.
ModelFile simple_bitnet_cnn(unsigned seed = 1);

/// A file name of this test process in the temporary folder, removed at the end of its life.
class TemporaryPath {
 public:
  explicit TemporaryPath(const std::string& name);
  ~TemporaryPath();
  TemporaryPath(const TemporaryPath&) = delete;
  TemporaryPath& operator=(const TemporaryPath&) = delete;
  const std::filesystem::path& get() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<std::byte> read_bytes(const std::filesystem::path& path);
void write_bytes(const std::filesystem::path& path, const std::vector<std::byte>& bytes);

}  // namespace trit::test
