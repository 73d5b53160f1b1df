// SPDX-License-Identifier: MIT
//
// The grammar, as states of the event handler:
//
//   start --{--> top --"__metadata__"--> expect_metadata --{--> metadata ("key": "value")*
//                top --name------------> expect_tensor   --{--> tensor   "dtype" | "shape" [..] |
//                "data_offsets" [..]
#include "io/safetensors_header.h"

#include "io/dtype.h"
#include "io/strict_json.h"
#include "trit/error.h"

namespace trit::io {
namespace {

class HeaderHandler final : public JsonHandler {
 public:
  explicit HeaderHandler(Header& header) : header_(header) {}

  void scalar(Json value) override {
    if (value.is_string()) {
      string(value.get_ref<std::string&>());
    } else if (value.is_number_unsigned()) {
      number(value.get<std::uint64_t>());
    } else {
      refuse(value.dump());
    }
  }

  void begin(bool array) override {
    if (array) {
      begin_array();
      return;
    }
    switch (state_) {
      case State::start:
        state_ = State::top;
        break;
      case State::expect_metadata:
        state_ = State::metadata;
        break;
      case State::expect_tensor:
        state_ = State::tensor;
        entry_ = {};
        offsets_ = 0;
        seen_ = {};
        break;
      default:
        refuse("{");
    }
  }

  void end(bool array) override {
    if (array) {
      end_array();
      return;
    }
    if (state_ == State::tensor) {
      finish_tensor();
    }
    state_ = State::top;
  }

  void key(std::string value) override {
    if (value.find('\0') != std::string::npos) {
      fail("the name \"" + shorten(value.substr(0, value.find('\0'))) + "\\u0000...\" contains a NUL");
    }
    if (state_ == State::top) {
      top_key(value);
      return;
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
  }

 private:
  enum class State { start, top, expect_metadata, metadata, expect_tensor, tensor, shape, offsets };
  struct Seen {
    bool dtype = false, shape = false, offsets = false;
  };

  void string(std::string& value) {
    if (state_ == State::metadata) {
      header_.metadata[key_] = std::move(value);
    } else if (state_ == State::tensor && key_ == "dtype") {
      if (dtype_bits(value) == 0) {
        fail("dtype \"" + shorten(value) + "\", wanted one of " + dtype_names());
      }
      entry_.dtype = std::move(value);
    } else {
      refuse("\"" + shorten(value) + "\"");
    }
  }

  void number(std::uint64_t value) {
    if (state_ == State::shape && value <= static_cast<std::uint64_t>(INT64_MAX)) {
      if (entry_.shape.size() == kMaxRank) {
        fail("more than " + std::to_string(kMaxRank) + " dimensions");
      }
      entry_.shape.push_back(static_cast<std::int64_t>(value));
    } else if (state_ == State::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
    } else {
      refuse(std::to_string(value));
    }
  }

  void begin_array() {
    if (state_ == State::tensor && key_ == "shape") {
      state_ = State::shape;
    } else if (state_ == State::tensor && key_ == "data_offsets") {
      state_ = State::offsets;
    } else {
      refuse("[");
    }
  }

  void end_array() {
    if (state_ == State::offsets && offsets_ != 2) {
      fail("data_offsets holds " + std::to_string(offsets_) + " values, wanted [begin, end]");
    }
    state_ = State::tensor;
  }

  void top_key(std::string& value) {
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
  [[noreturn]] void refuse(const std::string& found) const {
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
        break;
    }
    fail("data_offsets holds " + found + ", wanted two integers from 0 to 2^64 - 1");
  }

  [[noreturn]] void fail(const std::string& what) const {
    const bool in_metadata = state_ == State::expect_metadata || state_ == State::metadata;
    const bool in_tensor = !in_metadata && state_ != State::start && state_ != State::top;
    throw Error(std::string("header: ") + (in_metadata ? "__metadata__: " : "") +
                (in_tensor ? "tensor \"" + shorten(tensor_) + "\": " : "") + what);
  }

  /// A message quotes at most this much of a file.
  static std::string shorten(const std::string& text) {
    constexpr std::size_t kQuoted = 100;
    return text.size() <= kQuoted ? text : text.substr(0, kQuoted) + "...";
  }

  Header& header_;
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
  Header header;
  HeaderHandler handler(header);
  read_json(text, file, {.first_byte = 8, .check_keys = false}, handler);  // it finds equal names itself
  return header;
}

}  // namespace trit::io
