// SPDX-License-Identifier: MIT
//
// What differs between two checkpoints, a few rows at a time.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "io/dtype.h"
#include "io/llama_cpp_names.h"
#include "io/number_text.h"
#include "io/scale_rows.h"
#include "io/write_plan.h"
#include "trit/io.h"

namespace trit::io {
namespace {

/// Enough digits to tell two float32 apart.
constexpr int kFloatDigits = 9;
/// The same of float64, where a tensor has such elements.
constexpr int kDoubleDigits = 17;

/// "-1", "0" or "1": code `place` of a byte of four.
std::string code_text(unsigned byte, int place) {
  const unsigned code = byte >> (2 * place) & 3U;
  return code == 3 ? "-1" : std::to_string(code);
}

/// " at [2, 17]" for element 2 * columns + 17; nothing for a scalar.
std::string place_text(std::span<const std::int64_t> shape, std::int64_t element) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t i = shape.size(); i > 0; --i) {
    index[i - 1] = element % shape[i - 1];
    element /= shape[i - 1];
  }
  return shape.empty() ? "" : " at " + shape_text(index);
}

std::string_view kind_text(TensorKind kind) {
  return kind == TensorKind::ternary    ? "ternary"
         : kind == TensorKind::floating ? "floating"
         : kind == TensorKind::blocks   ? "quantised blocks"
                                        : "neither ternary nor floating";
}

/// Scales that differ, and the first of them.
struct ScaleDifferences {
  std::int64_t count = 0;
  std::int64_t row = 0, group = 0;
  std::string text;
};

class Comparison {
 public:
  Comparison(const Checkpoint& a, const Checkpoint& b, const DiffOptions& options)
      : a_(a), b_(b), options_(options) {
    for (const TensorInfo& tensor : a.tensors()) {
      total_ += tensor.stored_bytes;
    }
  }

  std::vector<Difference> run() {
    for (const TensorInfo& tensor : a_.tensors()) {
      const TensorInfo* other = b_.find(tensor.name);
      if (other == nullptr) {
        add(tensor, "only in the first");
      } else {
        compare(tensor, *other);
      }
      a_.release(tensor);
      if (other != nullptr) {
        b_.release(*other);
      }
      done_ += tensor.stored_bytes;
      if (options_.progress) {
        options_.progress(done_, total_);
      }
    }
    for (const TensorInfo& tensor : b_.tensors()) {
      if (a_.find(tensor.name) == nullptr) {
        add(tensor, "only in the second");
      }
    }
    std::stable_sort(differences_.begin(), differences_.end(),
                     [](const Difference& x, const Difference& y) { return x.name < y.name; });
    return std::move(differences_);
  }

 private:
  void add(const TensorInfo& tensor, std::string what) {
    differences_.push_back({std::string(tensor.name), std::move(what)});
  }
  /// By value: -0 equals 0, NaN equals NaN, an infinity itself alone, whatever the tolerance.
  bool differ(double x, double y) const {
    if (x == y || (std::isnan(x) && std::isnan(y))) {
      return false;
    }
    if (!std::isfinite(x) || !std::isfinite(y)) {
      return true;
    }
    // Halves: the difference of two float64 may overflow.
    return !(std::fabs(x / 2 - y / 2) <= options_.tolerance * (std::max(std::fabs(x), std::fabs(y)) / 2));
  }

  void compare(const TensorInfo& a, const TensorInfo& b) {
    if (a.kind != b.kind) {
      add(a, std::string(kind_text(a.kind)) + " in the first, " + std::string(kind_text(b.kind)) +
                 " in the second");
    } else if (!std::ranges::equal(a.shape_in_file(), b.shape_in_file())) {
      add(a, "shape: " + shape_text(a.shape_in_file()) + " and " + shape_text(b.shape_in_file()));
    } else if (a.kind == TensorKind::ternary) {
      compare_codes(a, b);
      compare_scale(a, b);
    } else if (a.kind == TensorKind::floating) {
      compare_floats(a, b);
    } else {
      compare_elements(a, b);
    }
  }

  void compare_codes(const TensorInfo& a, const TensorInfo& b) {
    const std::int64_t row_bytes = packed_row_bytes(a.shape[1]);
    std::vector<std::uint8_t> other;
    std::int64_t different = 0;
    std::string example;
    for_each_rows(a_, a, [&](std::span<const std::uint8_t> codes, std::int64_t first, std::int64_t rows) {
      other.resize(codes.size());
      b_.read_codes(b, first, rows, other);
      for (std::size_t i = 0; i < codes.size(); ++i) {
        const unsigned bits = codes[i] ^ other[i];
        if (bits != 0 && different == 0) {
          const int place = std::countr_zero(bits) / 2;
          const auto row = static_cast<std::int64_t>(i) / row_bytes;
          const std::int64_t column = 4 * (static_cast<std::int64_t>(i) % row_bytes) + place;
          example = code_text(codes[i], place) + " against " + code_text(other[i], place) +
                    place_text(a.shape, (first + row) * a.shape[1] + column);
        }
        different += std::popcount((bits | bits >> 1) & 0x55U);
      }
    });
    if (different != 0) {
      add(a, std::to_string(different) + " of " + std::to_string(a.shape[0] * a.shape[1]) + " codes; " +
                 example);
    }
  }

  /// Scale by scale at the finer granularity of the two. Those of zeros have no effect and are not compared.
  void compare_scale(const TensorInfo& a, const TensorInfo& b) {
    const ScaleRows x(a_, a);
    const ScaleRows y(b_, b);
    const std::int64_t inputs = x.group() == 0   ? y.inputs()
                                : y.group() == 0 ? x.inputs()
                                                 : std::gcd(x.group(), y.group());
    const std::int64_t groups = groups_of(a.shape[1], inputs);
    const bool one = x.fixed().size() == 1 && y.fixed().size() == 1;
    ScaleDifferences found;
    std::vector<float> other(static_cast<std::size_t>(y.groups()));
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(packed_row_bytes(a.shape[1])));
    x.for_each_row([&](std::int64_t row, std::span<const float> scales) {
      if (one && found.count != 0) {
        return;
      }
      y.read(row, 1, other);
      for (std::int64_t i = 0; i < groups; ++i) {
        const std::int64_t column = i * inputs;
        const float first = scales[static_cast<std::size_t>(column / x.inputs())];
        const float second = other[static_cast<std::size_t>(column / y.inputs())];
        const auto zeros = [&](const Checkpoint& checkpoint, const TensorInfo& tensor) {
          checkpoint.read_codes(tensor, row, 1, codes);
          return are_zeros(codes, column, std::min(column + inputs, a.shape[1]));
        };
        if (differ(first, second) && !(zeros(a_, a) && zeros(b_, b)) && found.count++ == 0) {
          found.text = number_text(first, kFloatDigits) + " and " + number_text(second, kFloatDigits);
          found.row = row;
          found.group = i;
        }
      }
    });
    if (found.count == 0) {
      return;
    }
    const std::int64_t end = std::min((found.group + 1) * inputs, a.shape[1]);
    const std::string columns =
        groups == 1 ? ""
                    : ", columns " + std::to_string(found.group * inputs) + " to " + std::to_string(end - 1);
    const std::string place = " in row " + std::to_string(found.row) + columns + ", " +
                              std::to_string(found.count) + " of " + std::to_string(a.shape[0] * groups) +
                              (groups == 1 ? " rows" : " groups");
    add(a, "scale: " + found.text + (one ? "" : place));
  }

  /// Elements as float64, which holds every value of every floating type.
  static void read_values(const Checkpoint& from, const TensorInfo& tensor, std::int64_t first,
                          std::span<double> values) {
    if (tensor.type == "F64") {
      from.read_elements(tensor, first, std::as_writable_bytes(values));
      return;
    }
    std::vector<float> floats(values.size());
    from.read_floats(tensor, first, floats);
    std::copy(floats.begin(), floats.end(), values.begin());
  }

  void compare_floats(const TensorInfo& a, const TensorInfo& b) {
    constexpr std::int64_t kAtOnce = 1 << 16;
    const std::int64_t count = checked_numel(a.shape).value_or(0);
    std::vector<double> x(static_cast<std::size_t>(std::min(kAtOnce, count)));
    std::vector<double> y(x.size());
    std::int64_t different = 0;
    double largest = -1;         // among pairs of finite numbers
    std::string example;         // the first pair that differs
    bool example_finite = true;  // replaced by the first pair with a NaN or an infinity, which says more
    const int digits = a.type == "F64" || b.type == "F64" ? kDoubleDigits : kFloatDigits;
    for (std::int64_t first = 0; first < count; first += kAtOnce) {
      const auto part = static_cast<std::size_t>(std::min(kAtOnce, count - first));
      read_values(a_, a, first, std::span(x).first(part));
      read_values(b_, b, first, std::span(y).first(part));
      for (std::size_t i = 0; i < part; ++i) {
        if (!differ(x[i], y[i])) {
          continue;
        }
        const bool finite = std::isfinite(x[i]) && std::isfinite(y[i]);
        if (different == 0 || (example_finite && !finite)) {
          example = number_text(x[i], digits) + " against " + number_text(y[i], digits) +
                    place_text(a.shape, first + static_cast<std::int64_t>(i));
          example_finite = finite;
        }
        ++different;
        largest = finite ? std::max(largest, std::fabs(x[i] - y[i])) : largest;
      }
    }
    if (different != 0) {
      add(a, std::to_string(different) + " of " + std::to_string(count) + " elements" +
                 (largest < 0 ? "" : ", by " + number_text(largest, kFloatDigits) + " at most") + "; " +
                 example);
    }
  }

  /// Bytes that are not computed with: integers, 8-bit floats.
  void compare_elements(const TensorInfo& a, const TensorInfo& b) {
    if (a.type != b.type) {
      add(a, "type: " + std::string(a.type) + " and " + std::string(b.type));
      return;
    }
    constexpr std::int64_t kAtOnce = 1 << 16;
    const Elements elements = elements_of(a);
    const std::int64_t count = elements.count;
    if (elements.bits % 8 != 0 || static_cast<std::uint64_t>(elements.bytes(count)) != a.stored_bytes) {
      // Elements that are not whole bytes.
      std::vector<std::byte> x(a.stored_bytes);
      std::vector<std::byte> y(b.stored_bytes);
      a_.read_elements(a, 0, x);
      b_.read_elements(b, 0, y);
      if (x != y) {
        add(a, "elements");
      }
      return;
    }
    const auto size = static_cast<std::size_t>(elements.bytes(1));
    std::vector<std::byte> x(static_cast<std::size_t>(std::min(kAtOnce, count)) * size);
    std::vector<std::byte> y(x.size());
    std::int64_t different = 0;
    std::int64_t example = 0;
    for (std::int64_t first = 0; first < count; first += kAtOnce) {
      const auto part = static_cast<std::size_t>(std::min(kAtOnce, count - first));
      a_.read_elements(a, first, std::span(x).first(part * size));
      b_.read_elements(b, first, std::span(y).first(part * size));
      for (std::size_t i = 0; i < part; ++i) {
        if (!std::equal(&x[i * size], &x[i * size] + size, &y[i * size])) {
          example = different == 0 ? first + static_cast<std::int64_t>(i) : example;
          ++different;
        }
      }
    }
    if (different != 0) {
      add(a, std::to_string(different) + " of " + std::to_string(count) + " elements; the first" +
                 place_text(a.shape, example));
    }
  }

  const Checkpoint& a_;
  const Checkpoint& b_;
  const DiffOptions& options_;
  std::vector<Difference> differences_;
  std::uint64_t done_ = 0, total_ = 0;
};

}  // namespace

std::vector<Difference> diff(const Checkpoint& a, const Checkpoint& b, const DiffOptions& options) {
  // A GGUF file is compared with one of another format under the names that this one has.
  const auto a_renamed = b.gguf_pairs().empty() ? with_huggingface_names(a) : nullptr;
  const auto b_renamed = a.gguf_pairs().empty() ? with_huggingface_names(b) : nullptr;
  const Checkpoint& first = a_renamed ? *a_renamed : a;
  const Checkpoint& second = b_renamed ? *b_renamed : b;
  std::vector<Difference> differences = Comparison(first, second, options).run();
  const auto rotation = [](const Checkpoint& checkpoint) {
    const auto at = checkpoint.metadata().find(kRotationKey);
    return at == checkpoint.metadata().end() ? std::string() : at->second;
  };
  // The same weights with and without a rotation are different models.
  if (const std::string x = rotation(first), y = rotation(second); x != y) {
    differences.push_back({std::string(kRotationKey), y.empty()   ? "rotated weights only in the first"
                                                      : x.empty() ? "rotated weights only in the second"
                                                                  : "the rotations differ"});
  }
  return differences;
}

}  // namespace trit::io
