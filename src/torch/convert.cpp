// SPDX-License-Identifier: MIT
#include <typeinfo>
#include <unordered_map>

#include "trit/torch.h"

namespace trit::nn {
namespace {

using torch::nn::LinearImpl;
using torch::nn::Module;
using Filter = std::function<bool(const std::string&, LinearImpl&)>;

constexpr const char* kFiltered = "refused by the filter";

// Walks a module tree and replaces Linear layers where their holder can be made to point to the new one.
class Converter {
 public:
  Converter(const Filter& filter, const ConvertOptions& options) : filter_(filter), options_(options) {}

  std::vector<Conversion> run(Module& root) {
    if (root.as<LinearImpl>() != nullptr) {
      report_.push_back({"", false, "the module is itself a Linear: nothing holds it that could be changed"});
    } else {
      visit(root, "");
    }
    // Every place in the tree is changed by now and layers_ has one pointer: others are outside.
    for (Conversion& conversion : report_) {
      if (conversion.converted) {
        conversion.held_elsewhere = layers_.at(originals_.at(conversion.name)).first.use_count() - 1;
      }
    }
    return std::move(report_);
  }

  /// Whether the tree had a BitLinear before.
  bool met_bit_linear() const { return met_bit_linear_; }

 private:
  void visit(Module& parent, const std::string& path) {
    const auto names = parent.named_children().keys();
    for (std::size_t index = 0; index < names.size(); ++index) {
      const std::string name = path.empty() ? names[index] : path + "." + names[index];
      // One reference here and one in the parent's list of children; any other is a member that keeps using
      // the old layer whatever that list says.
      std::shared_ptr<Module> child = parent.named_children()[names[index]];
      if (child->as<LinearImpl>() == nullptr) {
        if (child->as<BitLinearImpl>() == nullptr) {
          visit(*child, name);
        } else {
          met_bit_linear_ = true;
        }
        continue;
      }
      const long others = child.use_count() - 2;
      auto linear = std::static_pointer_cast<LinearImpl>(std::move(child));
      std::string reason = refusal(name, *linear);
      if (reason.empty()) {
        reason = replace(parent, names[index], index, linear, others);
      }
      if (reason.empty()) {
        originals_[name] = linear.get();
      }
      report_.push_back({name, reason.empty(), std::move(reason)});
    }
  }

  // Why this layer is not to be converted, or nothing.
  std::string refusal(const std::string& name, LinearImpl& linear) const {
    if (filter_ && !filter_(name, linear)) {
      return kFiltered;
    }
    if (typeid(linear) != typeid(LinearImpl)) {
      return "a class derived from torch::nn::Linear: its forward is not known";
    }
    const auto type = linear.weight.scalar_type();
    if (type != torch::kFloat && type != torch::kHalf && type != torch::kBFloat16) {
      return std::string("the weight is ") + c10::toString(type) + ", wanted Float, Half or BFloat16";
    }
    return {};
  }

  // Puts a BitLinear in the place of `linear` and returns nothing, or why that cannot be done.
  std::string replace(Module& parent, const std::string& name, std::size_t index,
                      const std::shared_ptr<LinearImpl>& linear, long others) {
    if (auto* sequential = parent.as<torch::nn::SequentialImpl>()) {
      auto layer = converted(linear);
      *(sequential->begin() + static_cast<std::ptrdiff_t>(index)) = torch::nn::AnyModule(layer);
      parent.replace_module(name, layer);
      return {};
    }
    if (auto* list = parent.as<torch::nn::ModuleListImpl>()) {
      auto layer = converted(linear);
      *(list->begin() + static_cast<std::ptrdiff_t>(index)) = layer;
      parent.replace_module(name, layer);
      return {};
    }
    if (auto* dictionary = parent.as<torch::nn::ModuleDictImpl>()) {
      dictionary->update({{name, std::shared_ptr<Module>(converted(linear))}});
      return {};
    }
    if (others > 0) {
      return "a member of " + parent.name() +
             " holds it as torch::nn::Linear and would go on using it: declare that member as "
             "trit::nn::BitLinear";
    }
    parent.replace_module(name, converted(linear));
    return {};
  }

  // The BitLinear for `linear`, one for all places that share it.
  std::shared_ptr<BitLinearImpl> converted(const std::shared_ptr<LinearImpl>& linear) {
    auto& [original, layer] = layers_[linear.get()];
    if (!layer) {
      original = linear;
      layer = std::make_shared<BitLinearImpl>(
          BitLinearOptions(linear->options.in_features(), linear->options.out_features())
              .bias(linear->bias.defined())
              .norm(options_.norm)
              .eps(options_.eps)
              .scale(options_.scale, options_.group));
      layer->to(linear->weight.device(), linear->weight.scalar_type());
      layer->share_parameters(linear->weight, linear->bias);
      layer->train(linear->is_training());
    }
    return layer;
  }

  const Filter& filter_;
  ConvertOptions options_;
  std::vector<Conversion> report_;
  std::unordered_map<std::string, LinearImpl*> originals_;  // of the converted, by name
  bool met_bit_linear_ = false;
  // The originals are kept until the end, so that an address stays one layer.
  std::unordered_map<LinearImpl*, std::pair<std::shared_ptr<LinearImpl>, std::shared_ptr<BitLinearImpl>>>
      layers_;
};

// "fc1 (why), fc2 (why) and 3 more"
class List {
 public:
  void add(const std::string& name, const std::string& why) {
    constexpr int kShown = 4;
    if (++count_ <= kShown) {
      text_ +=
          (text_.empty() ? "" : ", ") + (name.empty() ? "the module" : "'" + name + "'") + " (" + why + ")";
    }
    rest_ = count_ > kShown ? " and " + std::to_string(count_ - kShown) + " more" : "";
  }
  bool empty() const { return count_ == 0; }
  std::string text() const { return text_ + rest_; }

 private:
  int count_ = 0;
  std::string text_, rest_;
};

// Warns where the result may not be what was meant.
void warn(const Module& module, const std::vector<Conversion>& report, bool met_bit_linear) {
  std::size_t converted = 0, filtered = 0;
  List left, held;
  for (const Conversion& conversion : report) {
    converted += conversion.converted ? 1 : 0;
    if (conversion.reason == kFiltered) {
      ++filtered;
    } else if (!conversion.converted) {
      left.add(conversion.name, conversion.reason);
    }
    if (conversion.held_elsewhere > 0) {
      held.add(conversion.name, std::to_string(conversion.held_elsewhere) + "x");
    }
  }
  if (report.empty() && !met_bit_linear) {
    TORCH_WARN("trit::nn::convert: nothing was replaced: ", module.name(),
               " has no torch::nn::Linear among its registered modules");
  } else if (filtered > 0 && filtered == report.size()) {
    TORCH_WARN("trit::nn::convert: nothing was replaced: the filter refused all ", filtered,
               " torch::nn::Linear layers of ", module.name());
  } else if (!left.empty()) {
    TORCH_WARN("trit::nn::convert: ", converted == 0 ? "nothing was replaced: " : "",
               "left in float: ", left.text());
  }
  if (!held.empty()) {
    TORCH_WARN(
        "trit::nn::convert: replaced in the module tree, while other pointers still lead to the old "
        "torch::nn::Linear and compute in float: ",
        held.text());
  }
}

}  // namespace

std::vector<Conversion> convert(Module& module, const Filter& filter, const ConvertOptions& options) {
  Converter converter(filter, options);
  std::vector<Conversion> report = converter.run(module);
  warn(module, report, converter.met_bit_linear());
  return report;
}

}  // namespace trit::nn
