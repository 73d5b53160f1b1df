// SPDX-License-Identifier: MIT
//
// The safetensors reader and writer: golden bytes, every kind of malformed header, and atomic writing.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "io/test_folder.h"
#include "trit/error.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

std::string length_bytes(std::uint64_t length) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) {
    bytes[i] = static_cast<char>(length >> (8 * i) & 0xffU);
  }
  return bytes;
}

std::string contents(const std::string& header, std::size_t data_bytes) {
  return length_bytes(header.size()) + header + std::string(data_bytes, '\1');
}

class Safetensors : public ::testing::Test {
 protected:
  void write(const std::string& bytes) const { std::ofstream(path(), std::ios::binary) << bytes; }
  std::string read() const {
    std::ifstream file(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::filesystem::path path() const { return folder_.path() / "x.safetensors"; }
  std::filesystem::path folder() const { return folder_.path(); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder()), {}));
  }

  /// What open() says of a file with this header and so many bytes of data; "" if it takes it.
  std::string refusal(const std::string& header, std::size_t data_bytes) const {
    write(contents(header, data_bytes));
    return refusal();
  }
  std::string refusal() const {
    try {
      SafetensorsFile::open(path());
      return "";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path().string()), std::string::npos) << error.what();
      return error.what();
    }
  }

 private:
  test::TestFolder folder_;
};

#define EXPECT_SAYS(message, part) EXPECT_NE((message).find(part), std::string::npos) << "said: " << (message)

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST_F(Safetensors, GoldenBytes) {
  const std::string four = "\1\2\3\4";
  const std::string three = "abc";
  const std::vector<TensorToWrite> tensors{{"z", "U8", {3}, bytes_of(three)},
                                           {"b", "F32", {}, bytes_of(four)},
                                           {"a\"\n", "F16", {2, 1}, bytes_of(four)},
                                           {"none", "I64", {0, 5}, {}}};
  save_safetensors(path(), tensors, {{"k", "v"}, {"a", "é"}});
  std::string header =
      R"({"__metadata__":{"a":"é","k":"v"},"none":{"dtype":"I64","shape":[0,5],"data_offsets":[0,0]},)"
      R"("b":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("a\"\n":{"dtype":"F16","shape":[2,1],"data_offsets":[4,8]},)"
      R"("z":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(read(), length_bytes(header.size()) + header + four + four + three);

  const SafetensorsFile file = SafetensorsFile::open(path());
  EXPECT_EQ(file.metadata(), (Metadata{{"k", "v"}, {"a", "é"}}));
  EXPECT_EQ(file.tensors().size(), 4U);
  EXPECT_EQ(file.at("b").numel(), 1);
  EXPECT_EQ(file.at("none").numel(), 0);
  EXPECT_EQ(file.at("a\"\n").shape, (std::vector<std::int64_t>{2, 1}));
  EXPECT_EQ(std::memcmp(file.at("z").data.data(), "abc", 3), 0);
  EXPECT_EQ(file.at("z").offset, 8 + header.size() + 8);
  EXPECT_FALSE(file.contains("y"));
  EXPECT_THROW(file.at("y"), Error);
}

TEST_F(Safetensors, OrderOfTensorsDoesNotMatter) {
  const std::string four = "\1\2\3\4";
  std::vector<TensorToWrite> tensors{
      {"a", "U8", {4}, bytes_of(four)}, {"c", "F32", {1}, bytes_of(four)}, {"b", "F32", {1}, bytes_of(four)}};
  save_safetensors(path(), tensors, {});
  const std::string first = read();
  std::swap(tensors[0], tensors[2]);
  save_safetensors(path(), tensors, {});
  EXPECT_EQ(read(), first);
}

/// All of safetensors 0.8, with the bits of an element.
const std::map<std::string, std::size_t> kDtypes{
    {"F64", 64},    {"F32", 32},    {"F16", 16},        {"BF16", 16},   {"I64", 64},    {"I32", 32},
    {"I16", 16},    {"I8", 8},      {"U64", 64},        {"U32", 32},    {"U16", 16},    {"U8", 8},
    {"BOOL", 8},    {"C64", 64},    {"F8_E4M3", 8},     {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E5M2FNUZ", 8}, {"F4", 4}};

TEST_F(Safetensors, EveryDtypeIsCopied) {
  // 200,008 elements: more than a part that is copied at once, and no multiple of it.
  for (const std::int64_t elements : {0, 8, 200008}) {
    std::vector<std::string> data;
    std::vector<TensorToWrite> tensors;
    data.reserve(kDtypes.size());
    for (const auto& [dtype, bits] : kDtypes) {
      std::string& bytes = data.emplace_back(static_cast<std::size_t>(elements) * bits / 8, '\0');
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<char>((i * 2654435761U >> 7 & 0x03U) | 0x3cU);  // numbers of float32
      }
      tensors.push_back({"t." + dtype, dtype, {2, elements / 2}, bytes_of(bytes)});
    }
    save_safetensors(path(), tensors, {});
    const auto checkpoint = open_checkpoint(path());
    ASSERT_EQ(checkpoint->tensors().size(), kDtypes.size());
    const auto copy = folder() / "copy";
    convert(*checkpoint, copy, {});
    EXPECT_TRUE(diff(*checkpoint, *open_checkpoint(copy)).empty());
    const SafetensorsFile again = SafetensorsFile::open(copy);
    for (const TensorToWrite& tensor : tensors) {
      const TensorView& found = again.at(tensor.name);
      EXPECT_EQ(found.dtype, tensor.dtype);
      EXPECT_EQ(found.shape, tensor.shape);
      EXPECT_TRUE(std::equal(found.data.begin(), found.data.end(), tensor.data.begin(), tensor.data.end()))
          << tensor.name;
    }
    if (elements == 0) {
      continue;
    }
    // The last byte of each counts.
    for (std::string& bytes : data) {
      bytes.back() = static_cast<char>(bytes.back() ^ 1);
    }
    save_safetensors(path(), tensors, {});
    EXPECT_EQ(diff(*open_checkpoint(copy), *open_checkpoint(path())).size(), kDtypes.size());
  }
}

/// A caller may multiply the sizes in any order.
TEST_F(Safetensors, EmptyTensorsWhoseOtherSizesOverflow) {
  for (const char* shape :
       {"[0,4611686018427387904,4]", "[4611686018427387904,0,4]", "[4611686018427387904,4,0]"}) {
    const std::string header =
        std::string(R"({"w":{"dtype":"F32","data_offsets":[0,0],"shape":)") + shape + "}}";
    EXPECT_SAYS(refusal(header, 0), "\"w\"");
    EXPECT_SAYS(refusal(header, 0), "4611686018427387904");
  }
  EXPECT_EQ(refusal(R"({"w":{"dtype":"F32","shape":[0,4611686018427387903],"data_offsets":[0,0]}})", 0), "");
}

TEST_F(Safetensors, ElementsBelowAByteFillTheirBytes) {
  EXPECT_EQ(refusal(R"({"w":{"dtype":"F4","shape":[3,2],"data_offsets":[0,3]}})", 3), "");
  EXPECT_EQ(refusal(R"({"w":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}})", 3), "");
  EXPECT_SAYS(refusal(R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2),
              "tensor \"w\": F4 [3] does not fill its last byte, wanted a multiple of 2 elements of 4 bits");
  EXPECT_SAYS(refusal(R"({"w":{"dtype":"F6_E3M2","shape":[2,3],"data_offsets":[0,5]}})", 5),
              "wanted a multiple of 4 elements of 6 bits");
  EXPECT_SAYS(refusal(R"({"w":{"dtype":"F4","shape":[6],"data_offsets":[0,6]}})", 6),
              "are 6 bytes, wanted 3 for F4 [6]");
  EXPECT_SAYS(refusal(R"({"w":{"dtype":"C64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0),
              "more than 2^63 bytes");
  const std::string two = "ab";
  const std::vector<TensorToWrite> odd{{"w", "F4", {3}, bytes_of(two)}};
  EXPECT_THROW(save_safetensors(path(), odd, {}), Error);
}

TEST_F(Safetensors, EmptyFileOfTensors) {
  save_safetensors(path(), {}, {});
  EXPECT_EQ(read(), length_bytes(8) + "{}      ");
  EXPECT_TRUE(SafetensorsFile::open(path()).tensors().empty());
}

TEST_F(Safetensors, FilesThatAreNone) {
  EXPECT_SAYS(refusal(), "No such file");
  std::filesystem::create_directory(path());
  EXPECT_SAYS(refusal(), "is a folder");
  std::filesystem::remove(path());
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  EXPECT_SAYS(refusal(), "pipe");  // and does not wait for a writer
  std::filesystem::remove(path());
  std::filesystem::create_symlink(path(), path());
  EXPECT_SAYS(refusal(), "cannot be read");
  std::filesystem::remove(path());
  for (std::size_t size = 0; size < 8; ++size) {
    write(std::string(size, '\1'));
    EXPECT_SAYS(refusal(), size == 0 ? std::string("an empty file (0 bytes); wanted a safetensors file")
                                     : std::to_string(size) + " bytes, wanted a safetensors file");
  }
}

TEST_F(Safetensors, HeaderLengths) {
  write(length_bytes(3) + "{}");
  EXPECT_SAYS(refusal(), "byte 0: a header of 3 bytes, wanted at most 2");
  write(length_bytes(~std::uint64_t{0}) + "{}");
  EXPECT_SAYS(refusal(), "wanted at most 2 (the rest of the file)");
  write(length_bytes(0));
  EXPECT_SAYS(refusal(), "the header starts with nothing");
  // A sparse file of more than 100 MB, so that the limit itself is what refuses.
  write(length_bytes(100'000'001) + "{");
  std::filesystem::resize_file(path(), 200'000'000);
  EXPECT_SAYS(refusal(), "wanted at most 100000000 (100 MB)");
}

TEST_F(Safetensors, HeadersThatAreNotJson) {
  for (const char* header :
       {" {}", "[]", "\"a\"", "{", "{}}", "{} x", "{\"a\"}", "{\"a\":}", "{\"\\ud800\":1}", "{'a':1}",
        "\xef\xbb\xbf{}", "{\"a\xff\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", "{/**/}",
        "{\"a\":NaN}", "{\"a\n\":1}"}) {
    EXPECT_SAYS(refusal(header, 1), "byte ") << header;
  }
  EXPECT_SAYS(refusal(std::string("{}\0{}", 5), 0), "a NUL at byte 10");
  EXPECT_SAYS(refusal("{\"a\":tru}", 0), "byte 16");
  EXPECT_NE(refusal(std::string(1'000'000, '['), 0), "");
  EXPECT_NE(refusal("{\"a\":" + std::string(1'000'000, '['), 0), "");
  EXPECT_NE(refusal("{\"a\":{\"shape\":" + std::string(1'000'000, '['), 0), "");
}

TEST_F(Safetensors, EntriesThatAreWrong) {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  const std::string u8 = "\"U8\"";
  EXPECT_EQ(refusal(entry(u8, "[2,2]", "[0,4]"), 4), "");
  std::string ones;  // 32 dimensions are the most
  for (int i = 0; i < 32; ++i) {
    ones += "1,";
  }
  struct Case {
    std::string header, says;
  };
  const Case cases[] = {
      {entry("\"F31\"", "[4]", "[0,4]"), "tensor \"w\": dtype \"F31\", wanted one of F64"},
      {entry("8", "[4]", "[0,4]"), "tensor \"w\": dtype is 8, wanted a string"},
      {entry(u8, "4", "[0,4]"), "shape is 4, wanted an array"},
      {entry(u8, "[-4]", "[0,4]"), "shape holds -4"},
      {entry(u8, "[-0]", "[0,4]"), "shape holds 0"},
      {entry(u8, "[4.0]", "[0,4]"), "shape holds 4.0"},
      {entry(u8, "[\"4\"]", "[0,4]"), "shape holds \"4\""},
      {entry(u8, "[[4]]", "[0,4]"), "shape holds ["},
      {entry(u8, "[null]", "[0,4]"), "shape holds null"},
      {entry(u8, "[9223372036854775808]", "[0,4]"), "shape holds 9223372036854775808"},
      {entry(u8, "[99999999999999999999999]", "[0,4]"), "shape holds 9"},
      {entry(u8, "[4294967296,4294967296]", "[0,4]"), "has more than 2^63 bytes"},
      {entry("\"F64\"", "[2305843009213693952]", "[0,4]"), "has more than 2^63 bytes"},
      {entry(u8, "[3]", "[0,4]"), "data_offsets [0, 4] are 4 bytes, wanted 3 for U8 [3]"},
      {entry("\"F32\"", "[4]", "[0,4]"), "wanted 16 for F32 [4]"},
      {entry(u8, "[4]", "[4,0]"), "the end lies before the beginning"},
      {entry(u8, "[4]", "[0]"), "data_offsets holds 1 values"},
      {entry(u8, "[4]", "[0,4,4]"), "data_offsets holds 4"},
      {entry(u8, "[4]", "[-1,3]"), "data_offsets holds -1"},
      {entry(u8, "[4]", "[0.0,4]"), "data_offsets holds 0.0"},
      {entry(u8, "[4]", "[18446744073709551612,18446744073709551616]"), "data_offsets holds"},
      {entry(u8, "[4]", "[18446744073709551611,18446744073709551615]"), "end outside the file's 4 bytes"},
      {entry(u8, "[4]", "[1,5]"), "end outside the file's 4 bytes"},
      {entry(u8, "[" + ones + "1]", "[0,1]"), "more than 32 dimensions"},
      {R"({"w":4})", "found 4, wanted an object with dtype"},
      {R"({"w":{"dtype":"U8","shape":[4]}})", "tensor \"w\": no data_offsets"},
      {R"({"w":{"dtype":"U8","data_offsets":[0,4]}})", "tensor \"w\": no shape"},
      {R"({"w":{"shape":[4],"data_offsets":[0,4]}})", "tensor \"w\": no dtype"},
      {R"({"w":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "\"dtype\" occurs twice"},
      {R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":1}})", "the key \"more\", wanted dtype"},
      {R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
       "tensor \"w\" occurs twice"},
      {R"({"w\u0000":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "contains a NUL"},
      {R"({"__metadata__":{"a":1}})", "__metadata__: the value of \"a\" is 1, wanted a string"},
      {R"({"__metadata__":{"a":{}}})", "__metadata__: the value of \"a\" is {"},
      {R"({"__metadata__":[]})", "__metadata__: found [, wanted an object of strings"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", "the key \"a\" occurs twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", "\"__metadata__\" occurs twice"},
  };
  for (const Case& c : cases) {
    EXPECT_SAYS(refusal(c.header, 4), c.says) << c.header;
  }
}

TEST_F(Safetensors, RangesTileTheData) {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  EXPECT_EQ(refusal(two("[4,8]", "[0,4]"), 8), "");  // any order
  EXPECT_SAYS(refusal(two("[0,4]", "[2,6]"), 6), "tensor \"b\": data_offsets [2, 6] overlap tensor \"a\"");
  EXPECT_SAYS(refusal(two("[0,4]", "[0,4]"), 4), "overlap");
  EXPECT_SAYS(refusal(two("[0,4]", "[5,9]"), 9), "leave a hole after tensor \"a\", which ends at 4");
  EXPECT_SAYS(refusal(two("[1,5]", "[5,9]"), 9), "leave a hole after the header");
  EXPECT_SAYS(refusal(two("[0,4]", "[4,8]"), 9), "9 bytes of data, wanted 8");
  EXPECT_SAYS(refusal(two("[0,4]", "[4,8]"), 7), "end outside the file's 7 bytes");
}

TEST_F(Safetensors, WriterRefuses) {
  const std::string four = "\1\2\3\4";
  const std::string before = contents("{}", 0);
  write(before);
  const auto save = [&](const std::vector<TensorToWrite>& tensors, const Metadata& metadata = {}) {
    EXPECT_THROW(save_safetensors(path(), tensors, metadata), Error);
    EXPECT_EQ(read(), before);
    EXPECT_EQ(files(), 1U);
  };
  save({{"", "U8", {4}, bytes_of(four)}});
  save({{"__metadata__", "U8", {4}, bytes_of(four)}});
  save({{std::string("a\0b", 3), "U8", {4}, bytes_of(four)}});
  save({{"a\xff", "U8", {4}, bytes_of(four)}});
  save({{"a", "U8", {4}, bytes_of(four)}, {"a", "F32", {1}, bytes_of(four)}});
  save({{"a", "X8", {4}, bytes_of(four)}});
  save({{"a", "U8", {5}, bytes_of(four)}});
  save({{"a", "F32", {4}, bytes_of(four)}});
  save({{"a", "U8", {-4}, bytes_of(four)}});
  save({{"a", "U8", {std::int64_t{1} << 62, 4}, bytes_of(four)}});
  save({}, {{"a", "\xff"}});
  save({}, {{std::string("a\0b", 3), "v"}});
}

TEST_F(Safetensors, TargetsThatCannotBeWritten) {
  const auto says = [](const std::filesystem::path& target) -> std::string {
    try {
      save_safetensors(target, {}, {});
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_SAYS(says(folder()), "it is a folder");
  EXPECT_SAYS(says("/dev/null"), "it is a device");  // rename() would put a file in its place
  EXPECT_SAYS(says(folder() / "missing" / "x"), "No such file");
  EXPECT_EQ(files(), 0U);
}

TEST_F(Safetensors, PermissionsOfTheTargetAreKept) {
  save_safetensors(path(), {}, {});
  std::filesystem::permissions(path(), std::filesystem::perms(0640));
  save_safetensors(path(), {}, {});
  EXPECT_EQ(std::filesystem::status(path()).permissions(), std::filesystem::perms(0640));
}

/// A disk with room for `bytes` a file: write() takes a part first, then fails.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_{};
};

TEST_F(Safetensors, ADiskThatFillsUpLeavesTheTargetAsItWas) {
  const std::string before = contents("{}", 0);
  write(before);
  const std::string data(100'000, 'x');
  const std::vector<TensorToWrite> tensors{{"a", "U8", {100'000}, bytes_of(data)}};
  for (const rlim_t room : {rlim_t{0}, rlim_t{4}, rlim_t{50}, rlim_t{50'000}}) {
    std::string message;
    {
      const FileSizeLimit limit(room);
      try {
        save_safetensors(path(), tensors, {});
      } catch (const Error& error) {
        message = error.what();
      }
    }
    EXPECT_SAYS(message, path().string() + ": cannot be written");
    EXPECT_EQ(read(), before);
    EXPECT_EQ(files(), 1U);  // no temporary is left
  }
  save_safetensors(path(), tensors, {});
  EXPECT_EQ(SafetensorsFile::open(path()).at("a").data.size(), 100'000U);
  EXPECT_EQ(files(), 1U);
}

}  // namespace
}  // namespace trit::io
