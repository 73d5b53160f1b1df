// SPDX-License-Identifier: MIT
//
// The grammar, as states of the event handler:
//
//   start --{--> top --"__metadata__"--> expect_metadata --{--> metadata ("key": "value")*
//                top --name------------> expect_tensor   --{--> tensor   "dtype" | "shape" [..] |
//                "data_offsets" [..]
#include "io/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "io/dtype.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Json = nlohmann::json;

class HeaderEvents final : public nlohmann::json_sax<Json> {
 public:
  HeaderEvents(Header& header, const std::string& file) : header_(header), file_(file) {}

  bool null() override { return refuse("null"); }
  bool boolean(bool value) override { return refuse(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return refuse(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return refuse(text); }
  bool binary(binary_t&) override { return refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return refuse(std::to_string(value));
      }
      if (entry_.shape.size() == kMaxRank) {
        fail("more than " + std::to_string(kMaxRank) + " dimensions");
      }
      entry_.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (state_ == State::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    return refuse(std::to_string(value));
  }

  bool string(string_t& value) override {
    if (state_ == State::metadata) {
      header_.metadata[key_] = std::move(value);
      return true;
    }
    if (state_ == State::tensor && key_ == "dtype") {
      if (dtype_bits(value) == 0) {
        fail("dtype \"" + shorten(value) + "\", wanted one of " + dtype_names());
      }
      entry_.dtype = std::move(value);
      return true;
    }
    return refuse("\"" + shorten(value) + "\"");
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::start:
        state_ = State::top;
        return true;
      case State::expect_metadata:
        state_ = State::metadata;
        return true;
      case State::expect_tensor:
        state_ = State::tensor;
        entry_ = {};
        offsets_ = 0;
        seen_ = {};
        return true;
      default:
        return refuse("{");
    }
  }

  bool key(string_t& value) override {
    if (value.find('\0') != std::string::npos) {
      fail("the name \"" + shorten(value.substr(0, value.find('\0'))) + "\\u0000...\" contains a NUL");
    }
    if (state_ == State::top) {
      return top_key(value);
    }
    if (state_ == State::metadata) {
      if (!header_.metadata.try_emplace(value).second) {
        fail("the key \"" + shorten(value) + "\" occurs twice");
      }
    } else if (value == "dtype" || value == "shape" || value == "data_offsets") {
      bool& seen = value == "dtype" ? seen_.dtype : value == "shape" ? seen_.shape : seen_.offsets;
      if (seen) {
        fail("the key \"" + value + "\" occurs twice");
      }
      seen = true;
    } else {
      fail("the key \"" + shorten(value) + "\", wanted dtype, shape and data_offsets");
    }
    key_ = std::move(value);
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ == State::tensor && key_ == "shape") {
      state_ = State::shape;
    } else if (state_ == State::tensor && key_ == "data_offsets") {
      state_ = State::offsets;
    } else {
      return refuse("[");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::offsets && offsets_ != 2) {
      fail("data_offsets holds " + std::to_string(offsets_) + " values, wanted [begin, end]");
    }
    state_ = State::tensor;
    return true;
  }

  bool end_object() override {
    if (state_ == State::tensor) {
      finish_tensor();
    }
    state_ = State::top;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const Json::exception& error) override {
    // The parser counts from 1, in the text; people and hex editors count from 0, in the file.
    const std::size_t offset = 8 + (position == 0 ? 0 : position - 1);
    throw Error(file_ + ": byte " + std::to_string(offset) +
                ": the header is not valid JSON: " + error.what());
  }

 private:
  enum class State { start, top, expect_metadata, metadata, expect_tensor, tensor, shape, offsets };
  struct Seen {
    bool dtype = false, shape = false, offsets = false;
  };

  bool top_key(std::string& value) {
    if (value == "__metadata__") {
      if (metadata_seen_) {
        fail("the key \"__metadata__\" occurs twice");
      }
      metadata_seen_ = true;
      state_ = State::expect_metadata;
    } else {
      if (header_.tensors.contains(value)) {
        fail("the tensor \"" + shorten(value) + "\" occurs twice");
      }
      state_ = State::expect_tensor;
      tensor_ = std::move(value);
    }
    return true;
  }

  void finish_tensor() {
    if (!seen_.dtype || !seen_.shape || !seen_.offsets) {
      fail(std::string("no ") + (!seen_.dtype ? "dtype" : !seen_.shape ? "shape" : "data_offsets"));
    }
    const std::string range =
        "data_offsets [" + std::to_string(entry_.begin) + ", " + std::to_string(entry_.end) + "]";
    if (entry_.begin > entry_.end) {
      fail(range + ": the end lies before the beginning");
    }
    const auto bytes = checked_bytes(entry_.dtype, entry_.shape);
    if (!bytes) {
      fail(size_problem(entry_.dtype, entry_.shape));
    }
    if (entry_.end - entry_.begin != static_cast<std::uint64_t>(*bytes)) {
      fail(range + " are " + std::to_string(entry_.end - entry_.begin) + " bytes, wanted " +
           std::to_string(*bytes) + " for " + entry_.dtype + " " + shape_text(entry_.shape));
    }
    header_.tensors.emplace(tensor_, std::move(entry_));
  }

  /// A value of the wrong type, or in the wrong place.
  bool refuse(const std::string& found) const {
    switch (state_) {
      case State::start:
      case State::top:
        fail("found " + found + ", wanted an object of tensors");
      case State::expect_metadata:
        fail("found " + found + ", wanted an object of strings");
      case State::metadata:
        fail("the value of \"" + shorten(key_) + "\" is " + found + ", wanted a string");
      case State::expect_tensor:
        fail("found " + found + ", wanted an object with dtype, shape and data_offsets");
      case State::tensor:
        fail(key_ + " is " + found + ", wanted " + (key_ == "dtype" ? "a string" : "an array of integers"));
      case State::shape:
        fail("shape holds " + found + ", wanted integers from 0 to 2^63 - 1");
      case State::offsets:
        fail("data_offsets holds " + found + ", wanted two integers from 0 to 2^64 - 1");
    }
    return false;
  }

  [[noreturn]] void fail(const std::string& what) const {
    const bool in_metadata = state_ == State::expect_metadata || state_ == State::metadata;
    const bool in_tensor = !in_metadata && state_ != State::start && state_ != State::top;
    throw Error(file_ + ": header: " + (in_metadata ? "__metadata__: " : "") +
                (in_tensor ? "tensor \"" + shorten(tensor_) + "\": " : "") + what);
  }

  /// A message quotes at most this much of a file.
  static std::string shorten(const std::string& text) {
    constexpr std::size_t kQuoted = 100;
    return text.size() <= kQuoted ? text : text.substr(0, kQuoted) + "...";
  }

  Header& header_;
  const std::string& file_;
  State state_ = State::start;
  std::string tensor_;  // name of the entry being read
  std::string key_;     // last key inside it, or inside __metadata__
  HeaderEntry entry_;
  std::size_t offsets_ = 0;
  Seen seen_;
  bool metadata_seen_ = false;
};

}  // namespace

Header parse_header(std::string_view text, const std::string& file) {
  if (text.empty() || text.front() != '{') {
    throw Error(
        file + ": byte 8: the header starts with " +
        (text.empty() ? "nothing" : "byte " + std::to_string(static_cast<unsigned char>(text.front()))) +
        ", wanted '{'");
  }
  // The parser takes a NUL for the end of the text and would ignore what follows it.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error(file + ": byte " + std::to_string(8 + nul) + ": a NUL in the header, wanted JSON text");
  }
  Header header;
  HeaderEvents events(header, file);
  Json::sax_parse(text.begin(), text.end(), &events);
  return header;
}

}  // namespace trit::io
