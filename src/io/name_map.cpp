// SPDX-License-Identifier: MIT
#include <nlohmann/json.hpp>
#include <regex>

#include "io/expression.h"
#include "io/json_scalars.h"
#include "io/mapped_file.h"
#include "io/tensor_names.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::io {

struct NameMap::Rule {
  std::regex expression;
  std::optional<std::string> replacement;
};

NameMap::NameMap() = default;
NameMap::~NameMap() = default;
NameMap::NameMap(NameMap&&) noexcept = default;
NameMap& NameMap::operator=(NameMap&&) noexcept = default;

NameMap NameMap::parse(std::string_view json, const std::string& what) {
  NameMap map;
  for_each_scalar(json, what, [&](std::span<const std::string> path, const JsonScalar& value) {
    const auto* text = std::get_if<std::string>(&value);
    if (path.size() != 1 || (text == nullptr && !std::holds_alternative<std::nullptr_t>(value))) {
      throw Error("the value of " + quoted_name(path[0]) + " is " +
                  (path.size() == 1 ? scalar_text(value) : "an object or array") +
                  ", wanted a string (the new name) or null (leave the tensor out)");
    }
    if (const std::string problem = expression_problem(path[0]); !problem.empty()) {
      throw Error(quoted_name(path[0]) + " has " + problem);
    }
    try {
      map.rules_.push_back({std::regex(path[0], std::regex::ECMAScript | std::regex::optimize),
                            text == nullptr ? std::nullopt : std::optional(*text)});
    } catch (const std::regex_error& error) {
      throw Error(quoted_name(path[0]) + " is not a regular expression: " + error.what());
    }
  });
  return map;
}

NameMap NameMap::load(const std::filesystem::path& path) {
  constexpr std::size_t kMaxBytes = std::size_t{16} << 20;
  return parse(read_text_file(path, kMaxBytes), path.string());
}

bool NameMap::empty() const { return rules_.empty(); }

std::optional<std::string> NameMap::apply(std::string_view name) const {
  for (const Rule& rule : rules_) {
    std::match_results<std::string_view::const_iterator> match;
    if (std::regex_match(name.begin(), name.end(), match, rule.expression)) {
      return rule.replacement ? std::optional(match.format(*rule.replacement)) : std::nullopt;
    }
  }
  return std::string(name);
}

}  // namespace trit::io
