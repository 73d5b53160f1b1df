// SPDX-License-Identifier: MIT
//
// The JSON reader: what it refuses, and where it says so.
#include "io/strict_json.h"

#include <gtest/gtest.h>

#include <cmath>

#include "io/json_scalars.h"
#include "trit/error.h"

namespace trit::io {
namespace {

/// What the reader says; "" if it takes the text.
std::string refusal(const std::string& text, const JsonRules& rules = {}) {
  try {
    parse_json(text, "file", rules);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void expect_says(const std::string& found, const std::string& wanted) {
  EXPECT_NE(found.find(wanted), std::string::npos) << "\"" << found << "\" does not say \"" << wanted << '"';
}

TEST(StrictJson, TreesKeepTheOrderOfMembers) {
  const std::string text = R"({"z":1,"a":[true,null,-2,1.5,"x"],"m":{"b":{},"a":[]}})";
  EXPECT_EQ(parse_json(text, "file", {}).dump(), text);
  EXPECT_EQ(parse_json("7", "file", {}), Json(7));
}

TEST(StrictJson, RefusalsNameTheByte) {
  expect_says(refusal(""), "file: not valid JSON");
  expect_says(refusal("[1,2"), "(byte 3)");
  expect_says(refusal("{\"a\":tru}"), "(byte 8)");
  expect_says(refusal("{\"a\":1,\"a\":2}"), "file: the key \"a\" occurs twice in one object (byte 9)");
  expect_says(refusal("{\"a\":1,\"\\u0061\":2}"), "occurs twice");
  EXPECT_EQ(refusal("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"), "");  // of different objects
  expect_says(refusal("[\"\xff\"]"), "not valid JSON");
  expect_says(refusal("[\"\xff\"]"), "(byte 2)");
  expect_says(refusal("[1e999]"), "not valid JSON");
  expect_says(refusal("[01]"), "not valid JSON");
  expect_says(refusal("[NaN]"), "not valid JSON");
  expect_says(refusal("[1] 2"), "(byte 4)");
  expect_says(refusal(std::string("[]\0[]", 5)), "file: a NUL at byte 2, wanted JSON text");
  expect_says(refusal("[]", {.max_bytes = 1}), "file: 2 bytes of JSON, wanted at most 1");
  EXPECT_EQ(refusal("[[]]", {.max_depth = 2}), "");
  expect_says(refusal("[[[]]]", {.max_depth = 2}), "nested deeper than 2 (byte 2)");
  expect_says(refusal(std::string(1'000'000, '[')), "nested deeper than 64 (byte 64)");
  expect_says(refusal("x", {.first_byte = 8}), "(byte 8)");
}

TEST(StrictJson, TextOfPython) {
  const JsonRules rules{.python_member = "checked"};
  const std::string text = R"({"a":NaN,"b":[-Infinity,"NaN"],"c":1,"c":2,"checked":{"d":Infinity}})";
  const Json tree = parse_json(text, "file", rules);
  EXPECT_EQ(python_text(tree),
            "{\n  \"a\": NaN,\n  \"b\": [\n    -Infinity,\n    \"NaN\"\n  ],\n  \"c\": 2,\n"
            "  \"checked\": {\n    \"d\": Infinity\n  }\n}");
  std::vector<double> numbers;
  for_each_scalar(
      text, "file",
      [&](std::span<const std::string>, const JsonScalar& value) {
        if (const auto* number = std::get_if<double>(&value)) {
          numbers.push_back(*number);
        }
      },
      rules);
  ASSERT_EQ(numbers.size(), 5U);
  EXPECT_TRUE(std::isnan(numbers[0]));
  EXPECT_EQ(numbers[1], -INFINITY);
  EXPECT_EQ(numbers[4], INFINITY);
  // Bytes are those of the text itself, though constants are longer inside.
  expect_says(refusal(R"({"a":NaN,"checked":{"d":1,"d":2}})", rules), "occurs twice in one object (byte 28)");
  expect_says(refusal(R"({"a":NaN,"b":})", rules), "(byte 13)");
}

TEST(StrictJson, ObjectsNameWhatIsWrong) {
  const Json tree = parse_json(R"({"n":3,"s":"x","e":-1,"a":[1]})", "file", {});
  const JsonObject object(tree, "file");
  EXPECT_EQ(object.integer("n", 0, 3), 3);
  EXPECT_EQ(object.positive("missing", 0.5F), 0.5F);
  const auto says = [](const auto& read, const std::string& wanted) {
    try {
      read();
      FAIL() << wanted;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), wanted);
    }
  };
  says([&] { object.check_all_read(); }, "file: unknown key \"s\", wanted: n, missing");
  says([&] { object.integer("n", 0, 2); }, "file: \"n\" is 3, wanted an integer from 0 to 2");
  says([&] { object.integer("s", 0, 2); }, "file: \"s\" is \"x\", wanted an integer from 0 to 2");
  says([&] { object.string("a"); }, "file: \"a\" is an array, wanted a string");
  says([&] { object.array("s"); }, "file: \"s\" is \"x\", wanted an array");
  says([&] { object.positive("e", 1); }, "file: \"e\" is -1, wanted a positive number");
  says([&] { object.at("missing"); }, "file: no \"missing\"");
  object.check_all_read();
  says([&] { JsonObject(tree["a"], "file"); }, "file: found an array, wanted an object");
}

}  // namespace
}  // namespace trit::io
