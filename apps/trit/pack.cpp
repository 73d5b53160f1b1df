// SPDX-License-Identifier: MIT
//
// trit pack: float matrices of a safetensors file to the stored form (docs/format.md), all else copied.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>

#include "command.h"
#include "common/progress.h"
#include "output.h"
#include "pack_plan.h"
#include "tensors.h"
#include "trit/error.h"
#include "trit/linear.h"

namespace trit::cli {
namespace {

struct PackOptions {
  std::string input, output, filter, scale = "tensor";
  bool json = false;
};

// Throws trit::Error, naming the tensor and the place, at the first NaN or infinity. columns = 0: a vector.
void check_finite(std::span<const float> values, std::int64_t columns, const std::string& name) {
  const auto bad = std::ranges::find_if(values, [](float v) { return !std::isfinite(v); });
  if (bad == values.end()) {
    return;
  }
  const std::int64_t at = bad - values.begin();
  const std::string place = columns == 0 ? fmt::format("index {}", at)
                                         : fmt::format("row {}, column {}", at / columns, at % columns);
  throw Error(
      fmt::format("tensor {}: the value at {} is {}, wanted finite values", printable(name), place, *bad));
}

/// The tensors of the output file, and the memory of those that are not in the input's mapping.
class Output {
 public:
  explicit Output(ScaleGranularity granularity) : granularity_(granularity) {}

  void pack(const std::string& name, const io::TensorView& tensor) {
    const std::int64_t rows = tensor.shape[0];
    const std::int64_t columns = tensor.shape[1];
    const std::vector<float> w = to_floats(tensor, name);
    check_finite(w, columns, name);
    std::vector<float> scale(granularity_ == ScaleGranularity::tensor ? 1 : static_cast<std::size_t>(rows));
    absmean(kernels_, *parallel_, w.data(), rows, columns, granularity_, scale.data());
    check_finite(scale, 0, name + "_scale");  // the sum of finite |w| can leave float32
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * packed_row_bytes(columns)));
    ternarize_pack(kernels_, *parallel_, w.data(), rows, columns, granularity_, scale.data(), codes.data());
    const std::vector<std::int64_t> scale_shape{static_cast<std::int64_t>(scale.size())};
    add(name, "U8", {rows, packed_row_bytes(columns)}, std::move(codes));
    add(name + "_scale", "F32", scale_shape, std::move(scale));
  }

  void convert(const std::string& name, const io::TensorView& tensor) {
    std::vector<float> values = to_floats(tensor, name);
    check_finite(values, 0, name);
    add(name, "F32", tensor.shape, std::move(values));
  }

  void copy(const std::string& name, const io::TensorView& tensor) {
    tensors_.push_back({name, tensor.dtype, tensor.shape, tensor.data});
  }

  std::span<const io::TensorToWrite> tensors() const { return tensors_; }

 private:
  template <typename Value>
  void add(const std::string& name, const char* dtype, std::vector<std::int64_t> shape,
           std::vector<Value> values) {
    const auto kept = std::make_shared<const std::vector<Value>>(std::move(values));
    kept_.push_back(kept);
    tensors_.push_back({name, dtype, std::move(shape), std::as_bytes(std::span(*kept))});
  }

  ScaleGranularity granularity_;
  const CpuKernels& kernels_ = cpu_kernels_for(Backend::automatic);
  std::unique_ptr<Parallel> parallel_ = make_parallel();
  std::vector<std::shared_ptr<const void>> kept_;
  std::vector<io::TensorToWrite> tensors_;
};

void report(const PackOptions& options, const io::SafetensorsFile& file, const PackPlan& plan,
            std::uint64_t before, double seconds) {
  const std::uint64_t after = std::filesystem::file_size(options.output);
  say(fmt::format("{}: {} of {} tensors packed (scale per {}), {} bytes from {}, {:.2f} s", options.output,
                  plan.packed.size(), file.tensors().size(), options.scale, grouped(after), grouped(before),
                  seconds));
  if (!options.json) {
    return;
  }
  nlohmann::ordered_json packed = nlohmann::ordered_json::array();
  for (const std::string& name : plan.packed) {
    packed.push_back({{"name", name}, {"shape", file.at(name).shape}});
  }
  print_json({{"input", options.input},
              {"output", options.output},
              {"scale", options.scale},
              {"packed", packed},
              {"copied", file.tensors().size() - plan.packed.size() - plan.converted.size()},
              {"converted", plan.converted},
              {"input_bytes", before},
              {"output_bytes", after},
              {"seconds", seconds}});
}

/// What is wrong with `text`; empty if it is a regular expression.
std::string refuse_expression(const std::string& text) {
  try {
    static_cast<void>(std::regex(text));
    return "";
  } catch (const std::regex_error& error) {
    return "'" + text + "' is no regular expression: " + error.what();
  }
}

int pack(const PackOptions& options) {
  apps::install_interrupt_handler();
  const auto start = std::chrono::steady_clock::now();
  // Stays mapped until the end: the output may replace the input, whose bytes remain readable until then.
  const io::SafetensorsFile file = io::SafetensorsFile::open(options.input);
  const PackPlan plan =
      plan_pack(file, options.filter.empty() ? std::nullopt : std::optional<std::string>(options.filter));
  apps::Progress progress("pack", static_cast<std::int64_t>(plan.packed.size()), "matrices");
  Output output(options.scale == "row" ? ScaleGranularity::row : ScaleGranularity::tensor);
  std::int64_t done = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    if (apps::interrupted()) {
      progress.clear();
      say("trit: interrupted");
      return kInterrupted;
    }
    if (plan.packed.contains(name)) {
      output.pack(name, tensor);
      progress.update(++done);
    } else if (plan.converted.contains(name)) {
      output.convert(name, tensor);
    } else {
      output.copy(name, tensor);
    }
  }
  const std::uint64_t before = std::filesystem::file_size(options.input);
  io::save_safetensors(options.output, output.tensors(), plan.metadata);
  progress.clear();
  report(options, file, plan, before,
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return kDone;
}

}  // namespace

void add_pack_command(CLI::App& app, Action& action) {
  const auto options = std::make_shared<PackOptions>();
  CLI::App* command = app.add_subcommand("pack", "float matrices of a safetensors file to 2 bits a weight");
  command->add_option("input", options->input, "safetensors file with float matrices")
      ->required()
      ->type_name("IN");
  command->add_option("output", options->output, "file to write; may be IN itself")
      ->required()
      ->type_name("OUT");
  command
      ->add_option(
          "--filter", options->filter,
          "pack the 2-D float tensors whose name this regular expression finds; if not given \"*.weight\"")
      ->check(CLI::Validator(refuse_expression, "", "regular expression"))
      ->type_name("REGEX");
  command->add_option("--scale", options->scale, "one scale a matrix (tensor) or one an output row (row)")
      ->type_name("tensor|row")
      ->capture_default_str()
      ->check(CLI::IsMember({"tensor", "row"}));
  add_json_option(*command, options->json);
  command->footer(
      "F32, F16, BF16 and F64 matrices are packed; other tensors and the metadata are copied. In a model "
      "file a\n"
      "packed linear layer becomes a ternary one. A NaN or an infinity is an error. The output file is "
      "written whole\n"
      "or not at all.\n"
      "Example: trit pack float.safetensors packed.safetensors --filter '^layers\\..*proj\\.weight$' --scale "
      "row");
  command->callback([options, &action] { action = [options] { return pack(*options); }; });
}

}  // namespace trit::cli
