// SPDX-License-Identifier: MIT
#include <charconv>

#include "cuda/plan.h"

namespace trit::cuda {
namespace {

std::string text(std::int32_t number) { return std::to_string(number); }

/// Takes `expected` off the front of `rest`; false, and nothing is taken, where it does not begin so.
bool take(std::string_view& rest, std::string_view expected) {
  const bool found = rest.starts_with(expected);
  rest.remove_prefix(found ? expected.size() : 0);
  return found;
}

bool take(std::string_view& rest, std::int32_t& number) {
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error != std::errc() || number < 1) {
    return false;
  }
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  return true;
}

}  // namespace

std::string name_of(const ProductPlan& plan) {
  if (const auto* decode = std::get_if<DecodeCut>(&plan)) {
    return "decode S" + text(decode->strips) + " P" + text(decode->row_warps) + " Q" + text(decode->k_warps);
  }
  if (std::holds_alternative<DecodeOneCut>(plan)) {
    return "decode_one";
  }
  if (const auto* gemm = std::get_if<GemmSm80Cut>(&plan)) {
    return "gemm_sm80 " + text(gemm->tile_tokens) + " / " + text(gemm->splits);
  }
  const auto& gemm = std::get<GemmSm90Cut>(plan);
  const std::string tile = text(gemm.rows) + "x" + text(gemm.tokens);
  return gemm.persistent ? "persistent " + tile : "split " + tile + " / " + text(gemm.split);
}

std::optional<ProductPlan> plan_from_name(std::string_view name) {
  std::optional<ProductPlan> plan;
  if (take(name, "decode S")) {
    DecodeCut cut{};
    if (take(name, cut.strips) && take(name, " P") && take(name, cut.row_warps) && take(name, " Q") &&
        take(name, cut.k_warps)) {
      plan = cut;
    }
  } else if (take(name, "decode_one")) {
    plan = DecodeOneCut{};
  } else if (take(name, "gemm_sm80 ")) {
    GemmSm80Cut cut{};
    if (take(name, cut.tile_tokens) && take(name, " / ") && take(name, cut.splits)) {
      plan = cut;
    }
  } else {
    const bool persistent = take(name, "persistent ");
    GemmSm90Cut cut{persistent, 0, 0, 1};
    if ((persistent || take(name, "split ")) && take(name, cut.rows) && take(name, "x") &&
        take(name, cut.tokens) && (persistent || (take(name, " / ") && take(name, cut.split)))) {
      plan = cut;
    }
  }
  return name.empty() ? plan : std::nullopt;
}

}  // namespace trit::cuda
