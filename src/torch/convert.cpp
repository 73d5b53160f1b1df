// SPDX-License-Identifier: MIT
#include <typeinfo>
#include <unordered_map>

#include "trit/torch.h"

namespace trit::nn {
namespace {

using torch::nn::LinearImpl;
using torch::nn::Module;
using Filter = std::function<bool(const std::string&, LinearImpl&)>;

// Walks a module tree and replaces Linear layers where their holder can be made to point to the new one.
class Converter {
 public:
  Converter(const Filter& filter, const ConvertOptions& options) : filter_(filter), options_(options) {}

  std::vector<Conversion> run(Module& root) {
    if (auto* linear = root.as<LinearImpl>()) {
      report_.push_back({"", false, "the module is itself a Linear: nothing holds it that could be changed"});
      static_cast<void>(linear);
    } else {
      visit(root, "");
    }
    return std::move(report_);
  }

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
        }
        continue;
      }
      const long others = child.use_count() - 2;
      auto linear = std::static_pointer_cast<LinearImpl>(std::move(child));
      std::string reason = refusal(name, *linear);
      if (reason.empty()) {
        reason = replace(parent, names[index], index, linear, others);
      }
      report_.push_back({name, reason.empty(), std::move(reason)});
    }
  }

  // Why this layer is not to be converted, or nothing.
  std::string refusal(const std::string& name, LinearImpl& linear) const {
    if (filter_ && !filter_(name, linear)) {
      return "refused by the filter";
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
              .scale(options_.scale));
      layer->to(linear->weight.device(), linear->weight.scalar_type());
      layer->share_parameters(linear->weight, linear->bias);
      layer->train(linear->is_training());
    }
    return layer;
  }

  const Filter& filter_;
  ConvertOptions options_;
  std::vector<Conversion> report_;
  // The originals are kept until the end, so that an address stays one layer.
  std::unordered_map<LinearImpl*, std::pair<std::shared_ptr<LinearImpl>, std::shared_ptr<BitLinearImpl>>>
      layers_;
};

}  // namespace

std::vector<Conversion> convert(Module& module, const Filter& filter, const ConvertOptions& options) {
  return Converter(filter, options).run(module);
}

}  // namespace trit::nn
