// SPDX-License-Identifier: MIT
#include "common/help.h"

#include <vector>

namespace trit::apps {
namespace {

constexpr std::size_t kColumns = 100;

/// "a, b or c".
std::string alternatives(const std::vector<std::string>& values) {
  std::string text;
  for (std::size_t i = 0; i < values.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == values.size() ? " or " : ", ") + values[i];
  }
  return text;
}

/// What a validator allows: CLI11 describes a choice as "{a,b,c}".
std::string allowed(const std::string& description) {
  const bool choice = description.starts_with('{') && description.ends_with('}');
  return choice ? alternatives(CLI::detail::split(description.substr(1, description.size() - 2), ','))
                : description;
}

/// `name` in the first column and `text`, wrapped, in the second, `indent` columns to the right.
std::string two_columns(const std::string& name, const std::string& text, std::size_t indent) {
  std::string lines = "  " + name;
  std::size_t column = lines.size();
  const auto begin_line = [&] {
    lines += "\n" + std::string(indent, ' ');
    column = indent;
  };
  if (column + 2 > indent) {
    begin_line();
  } else {
    lines += std::string(indent - column, ' ');
    column = indent;
  }
  for (const std::string& word : CLI::detail::split(text, ' ')) {
    if (column > indent && column + 1 + word.size() > kColumns) {
      begin_line();
    }
    lines += (column > indent ? " " : "") + word;
    column += (column > indent ? 1 : 0) + word.size();
  }
  return lines + "\n";
}

}  // namespace

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  std::string name = make_option_name(option, is_positional);
  std::vector<std::string> notes;
  if (option->get_type_size() != 0) {  // not a flag
    // "N:1 or more": the type's name and what each validator allows.
    const std::vector<std::string> parts = CLI::detail::split(option->get_type_name(), ':');
    name += is_positional ? "" : " " + parts.front();
    for (std::size_t i = 1; i < parts.size(); ++i) {
      notes.push_back(allowed(parts[i]));
    }
    if (!option->get_default_str().empty()) {
      notes.push_back("default " + option->get_default_str());
    }
    if (option->get_required() && !is_positional) {
      notes.emplace_back("required");
    }
  }
  std::string text = option->get_description();
  for (std::size_t i = 0; i < notes.size(); ++i) {
    text += (i == 0 ? " (" : "; ") + notes[i];
  }
  return two_columns(name, text + (notes.empty() ? "" : ")"), column_width_ + 2);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return two_columns(command->get_name(), command->get_description(), column_width_ + 2);
}

}  // namespace trit::apps
