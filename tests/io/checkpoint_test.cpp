// SPDX-License-Identifier: MIT
//
// The stored form, torchao's packing, conversion, names, float matrices made ternary, differences; and what
// happens when a disk fills up or a header lies.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <limits>

#include "io/gguf_builder.h"
#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"
#include "trit/quantize.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::random_matrix;
using test::read_matrix;
using test::TestFolder;

const Metadata kOwnForm{{"trit.version", "1"}, {"trit.layout", "rows-2bit"}, {"trit.scale", "multiply"}};

struct Tensors {
  std::vector<std::uint8_t> codes{0x31, 0x04};
  std::vector<float> scale{0.5F};
  std::vector<float> norm = std::vector<float>(6, 1.0F);

  std::vector<TensorToWrite> list() const {
    return {
        {"fc.weight", "U8", {1, static_cast<std::int64_t>(codes.size())}, std::as_bytes(std::span(codes))},
        {"fc.weight_scale",
         "F32",
         {static_cast<std::int64_t>(scale.size())},
         std::as_bytes(std::span(scale))}};
  }
};

TEST(StoredForm, InFeatures) {
  const TestFolder folder;
  Tensors tensors;
  const auto in_features = [&](const std::vector<TensorToWrite>& list, const Metadata& metadata) {
    save_safetensors(folder / "x", list, metadata);
    return open_checkpoint(folder / "x")->find("fc.weight")->shape[1];
  };
  EXPECT_EQ(in_features(tensors.list(), kOwnForm), 8);
  Metadata metadata = kOwnForm;
  metadata["trit.in_features.fc.weight"] = "7";
  EXPECT_EQ(in_features(tensors.list(), metadata), 7);
  for (const char* wrong : {"4", "9", "-1", "7x", "", "99999999999999999999"}) {
    metadata["trit.in_features.fc.weight"] = wrong;
    expect_error([&] { in_features(tensors.list(), metadata); },
                 {"trit.in_features.fc.weight", "wanted 5..8"});
  }
  auto list = tensors.list();
  list.push_back({"fc.norm.weight", "F32", {6}, std::as_bytes(std::span(tensors.norm))});
  EXPECT_EQ(in_features(list, kOwnForm), 6);
}

TEST(StoredForm, WhatIsRefused) {
  const TestFolder folder;
  const auto open = [&](const std::vector<TensorToWrite>& list, const Metadata& metadata) {
    save_safetensors(folder / "x", list, metadata);
    return open_checkpoint(folder / "x");
  };
  Tensors tensors;
  for (const auto& [key, value] : kOwnForm) {
    Metadata metadata = kOwnForm;
    metadata[key] = "other";
    expect_error([&] { open(tensors.list(), metadata); },
                 {"metadata " + key + " is \"other\"", "wanted \"" + value});
  }
  tensors.scale = {1, 2};
  expect_error([&] { open(tensors.list(), kOwnForm); }, {"fc.weight_scale", "F32 [2], wanted F32 [1]"});
  tensors.scale = {std::numeric_limits<float>::infinity()};
  expect_error([&] { read_matrix(*open(tensors.list(), kOwnForm), "fc.weight"); },
               {"wanted finite and positive"});
  tensors.scale = {1};
  tensors.codes = {0x31, 0x08};
  expect_error([&] { read_matrix(*open(tensors.list(), kOwnForm), "fc.weight"); },
               {"row 0, column 5", "no code"});
  tensors.codes = {0x31, 0x10};
  auto list = tensors.list();
  list.push_back({"fc.norm.weight", "F32", {6}, std::as_bytes(std::span(tensors.norm))});
  expect_error([&] { read_matrix(*open(list, kOwnForm), "fc.weight"); },
               {"padding past the last column is not 0"});
  for (const char* name : {"../x", "a/..", "a\nb"}) {
    list = tensors.list();
    list[0].name = name;
    expect_error([&] { open(list, kOwnForm); }, {"tensor name"});
  }
}

TEST(Torchao, PackedInt8) {
  const TestFolder folder;
  const std::vector<std::uint8_t> codes{0x4c, 0x1f};
  const std::vector<float> scale{0.125F};
  for (const std::string separator : {".", "_", ":"}) {
    save_safetensors(
        folder / "x",
        std::vector<TensorToWrite>{
            {"fc.weight" + separator + "int_data", "I8", {2, 1}, std::as_bytes(std::span(codes))},
            {"fc.weight" + separator + "scale", "F32", {}, std::as_bytes(std::span(scale))}},
        {});
    const auto checkpoint = open_checkpoint(folder / "x");
    EXPECT_EQ(checkpoint->format(), Format::torchao);
    ASSERT_EQ(checkpoint->tensors().size(), 1U);
    const TernaryMatrix matrix = read_matrix(*checkpoint, "fc.weight");
    EXPECT_EQ(matrix.in_features, 4);
    EXPECT_EQ(matrix.codes, (std::vector<std::uint8_t>{0x31, 0xf4}));
    EXPECT_EQ(matrix.scale, scale);
  }
  const std::vector<std::uint8_t> bad{0x4c, 0x20};
  save_safetensors(folder / "x",
                   std::vector<TensorToWrite>{{"w.int_data", "I8", {2, 1}, std::as_bytes(std::span(bad))},
                                              {"w.scale", "F32", {}, std::as_bytes(std::span(scale))}},
                   {});
  expect_error([&] { read_matrix(*open_checkpoint(folder / "x"), "w"); }, {"tensor \"w\": row 1, column 1"});
}

ConvertOptions to_gguf(const std::string& block_format) {
  ConvertOptions options;
  options.to = Format::gguf;
  options.block_format = block_format;
  return options;
}

TEST(Convert, WhatGgufCannotHold) {
  const TestFolder folder;
  std::mt19937 random(1);
  const auto refused = [&](const MemoryCheckpoint& model, const std::string& block_format,
                           const std::vector<std::string>& parts) {
    expect_error([&] { convert(model, folder / "x", to_gguf(block_format)); }, parts);
    EXPECT_TRUE(folder.names().empty()) << folder.names().front();
  };
  MemoryCheckpoint rows;
  rows.add("fc.weight", random_matrix(random, 8, 320, false));
  refused(rows, "tq1_0",
          {"tensor \"fc.weight\"", "rows of 320", "multiples of 256", "trit, hf, gguf with q2_0"});
  refused(rows, "tq2_0", {"multiples of 256"});
  refused(rows, "q4_0", {"\"q4_0\"", "wanted one of tq1_0, tq2_0, q2_0"});
  MemoryCheckpoint odd;
  odd.add("fc.weight", random_matrix(random, 8, 100, true));
  refused(odd, "q2_0", {"multiples of 64", "Formats that can hold it: trit"});
  for (const float scale : {65520.0F, 1e-9F}) {
    MemoryCheckpoint model;
    TernaryMatrix matrix = random_matrix(random, 8, 256, false);
    matrix.scale = {scale};
    model.add("fc.weight", matrix);
    refused(model, "tq2_0", {"tensor \"fc.weight\"", "float16 rounds to", "trit, hf"});
  }
  MemoryCheckpoint bools;
  bools.add("mask", "BOOL", {2}, std::vector<std::byte>(2));
  refused(bools, "tq2_0", {"tensor \"mask\": BOOL [2]", "trit, hf"});
  MemoryCheckpoint long_name;
  long_name.add(std::string(64, 'n'), "F32", {1}, std::vector<std::byte>(4));
  refused(long_name, "tq2_0", {"a name of 64 bytes, GGUF takes at most 63", "--map"});
  refused(MemoryCheckpoint(), "tq2_0", {"no tensors to write"});
  ConvertOptions torchao;
  torchao.to = Format::torchao;
  expect_error([&] { convert(rows, folder / "x", torchao); }, {"torchao is read only", "trit, hf or gguf"});
}

TEST(Convert, Names) {
  const NameMap map = NameMap::parse(
      R"json({"model\\.layers\\.([0-9]+)\\.up\\.(.*)": "blk.$1.ffn_up.$2", "drop.*": null, "exact": "other"})json",
      "map");
  EXPECT_EQ(map.apply("model.layers.12.up.weight"), "blk.12.ffn_up.weight");
  EXPECT_EQ(map.apply("xmodel.layers.12.up.weight"), "xmodel.layers.12.up.weight");
  EXPECT_EQ(map.apply("drop.me"), std::nullopt);
  EXPECT_EQ(map.apply("exact"), "other");
  const auto refused = [](const char* json, const std::vector<std::string>& parts) {
    expect_error([&] { NameMap::parse(json, "map"); }, parts);
  };
  refused(R"json({"(": "x"})json", {"map: \"(\" is no regular expression"});
  refused(R"json({"a\\18446744073709551615": "x"})json", {"a number of more than 9 digits"});
  refused(R"json({"a": 1})json", {"the value of \"a\" is 1", "wanted a string"});
  refused(R"json({"a": {"b": "c"}})json", {"the value of \"a\""});
  refused(R"json({"a": "b", "a": "c"})json", {"occurs twice"});

  const TestFolder folder;
  std::mt19937 random(1);
  MemoryCheckpoint model;
  model.add("a.weight", random_matrix(random, 4, 8, false));
  model.add("b.weight", random_matrix(random, 4, 8, false));
  model.set_metadata("trit.model",
                     R"({"nodes":[{"op":"bit_linear","name":"a"},{"op":"bit_linear","name":"b"}]})");
  const auto converted = [&](const char* json) {
    ConvertOptions options;
    options.names = NameMap::parse(json, "map");
    convert(model, folder / "x", options);
    return open_checkpoint(folder / "x");
  };
  const auto renamed = converted(R"json({"a\\.(.*)": "first.$1"})json");
  EXPECT_EQ(read_matrix(*renamed, "first.weight").codes, read_matrix(model, "a.weight").codes);
  EXPECT_NE(renamed->metadata().find("trit.model")->second.find("\"name\":\"first\""), std::string::npos);
  const auto dropped = converted(R"json({"a\\..*": null})json");
  EXPECT_EQ(dropped->tensors().size(), 1U);
  EXPECT_FALSE(dropped->metadata().contains("trit.model"));
  expect_error([&] { converted(R"json({"[ab]\\.weight": "c"})json"); }, {"would both be called \"c\""});
  expect_error([&] { converted(R"json({"a.*": "../c"})json"); }, {"the part \"..\""});
  expect_error([&] { converted(R"json({"a.weight": "b.weight_scale"})json"); },
               {"has the name of the scale of \"b.weight\""});
}

TEST(Ternarized, IsPack) {
  std::mt19937 random(20240609);
  std::normal_distribution<float> normal(0, 0.02F);
  for (const auto granularity : {ScaleGranularity::tensor, ScaleGranularity::row}) {
    std::vector<float> w(37 * 1030);
    for (float& value : w) {
      value = normal(random);
    }
    MemoryCheckpoint source;
    source.add("a.weight", {37, 1030}, w);
    source.add("b.weight", {1030, 37}, w);
    source.add("c.bias", {37}, std::span(w).first(37));
    const auto packed =
        ternarized(source, granularity, [](std::string_view name) { return name != "b.weight"; });
    const TernaryMatrix wanted = pack(w, 37, 1030, granularity);
    const TernaryMatrix found = read_matrix(*packed, "a.weight");
    EXPECT_EQ(found.codes, wanted.codes);
    EXPECT_EQ(found.scale, wanted.scale);
    EXPECT_EQ(packed->find("b.weight")->kind, TensorKind::floating);
    EXPECT_EQ(packed->find("c.bias")->kind, TensorKind::floating);
    w[1030 * 5 + 7] = std::nanf("");
    MemoryCheckpoint bad;
    bad.add("a.weight", {37, 1030}, w);
    const auto refused = ternarized(bad, granularity);
    expect_error([&] { read_matrix(*refused, "a.weight"); },
                 {"tensor \"a.weight\"", "row 5, column 7", "finite"});
  }
}

TEST(Diff, SaysWhatDiffers) {
  std::mt19937 random(1);
  const TernaryMatrix matrix = random_matrix(random, 7, 9, false);
  const std::vector<float> values{1, 2, std::nanf("")};
  MemoryCheckpoint a;
  a.add("same.weight", matrix);
  a.add("codes.weight", matrix);
  a.add("scale.weight", matrix);
  a.add("values", {3}, values);
  a.add("only.a", {1}, std::span(values).first(1));
  a.add("shape", {2, 1}, std::span(values).first(2));
  a.add("kind.weight", matrix);
  MemoryCheckpoint b;
  b.add("same.weight", matrix);
  TernaryMatrix changed = matrix;
  std::vector<std::int8_t> t(9);
  unpack_row(std::span(changed.codes).subspan(6 * 3, 3), t);
  t[8] = static_cast<std::int8_t>(t[8] == 1 ? -1 : t[8] + 1);
  t[0] = static_cast<std::int8_t>(-t[0] == t[0] ? 1 : -t[0]);
  pack_row(t, std::span(changed.codes).subspan(6 * 3, 3));
  b.add("codes.weight", changed);
  changed = matrix;
  changed.scale = std::vector<float>(7, matrix.scale[0]);
  changed.scale[3] *= 1.001F;
  b.add("scale.weight", changed);
  b.add("values", {3}, std::vector<float>{1, 2.5F, std::nanf("")});
  b.add("only.b", {1}, std::span(values).first(1));
  b.add("shape", {1, 2}, std::span(values).first(2));
  b.add("kind.weight", {7, 9}, std::vector<float>(63));
  const auto differences = diff(a, b);
  std::map<std::string, std::string> found;
  for (const Difference& difference : differences) {
    found[difference.name] = difference.what;
  }
  EXPECT_EQ(found.size(), 7U);
  EXPECT_TRUE(found["codes.weight"].starts_with("2 of 63 codes; ") &&
              found["codes.weight"].ends_with(" at [6, 0]"))
      << found["codes.weight"];
  EXPECT_NE(found["scale.weight"].find("in row 3, 1 of 7 rows"), std::string::npos) << found["scale.weight"];
  EXPECT_EQ(found["values"], "1 of 3 elements, by 0.5 at most; 2 against 2.5 at [1]");
  EXPECT_EQ(found["only.a"], "only in the first");
  EXPECT_EQ(found["only.b"], "only in the second");
  EXPECT_EQ(found["shape"], "shape: [2, 1] and [1, 2]");
  EXPECT_EQ(found["kind.weight"], "ternary in the first, floating in the second");
  EXPECT_EQ(diff(a, b, {.tolerance = 0.3}).size(), 5U);
  EXPECT_TRUE(diff(a, a).empty());
}

/// 2, NaN, infinity, -infinity, 0, -0 as an element of each floating type.
const std::map<std::string, std::vector<std::uint64_t>> kSpecialBits{
    {"F64", {0x4000000000000000, 0x7ff8000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0, 1ULL << 63}},
    {"F32", {0x40000000, 0x7fc00000, 0x7f800000, 0xff800000, 0, 0x80000000}},
    {"F16", {0x4000, 0x7e00, 0x7c00, 0xfc00, 0, 0x8000}},
    {"BF16", {0x4000, 0x7fc0, 0x7f80, 0xff80, 0, 0x8000}}};
const std::vector<std::string> kSpecialTexts{"2", "NaN", "inf", "-inf", "0", "-0"};

/// [2, 3], 2 everywhere but at [1, 2].
std::unique_ptr<Checkpoint> special(const std::string& type, std::size_t value) {
  const std::vector<std::uint64_t>& bits = kSpecialBits.at(type);
  const std::size_t size = type == "F64" ? 8 : type == "F32" ? 4 : 2;
  std::vector<std::byte> bytes(6 * size);
  for (std::size_t i = 0; i < 6; ++i) {
    std::memcpy(&bytes[i * size], &bits[i == 5 ? value : 0], size);  // little endian
  }
  auto checkpoint = std::make_unique<MemoryCheckpoint>();
  checkpoint->add("values", type, {2, 3}, std::move(bytes));
  return checkpoint;
}

TEST(Diff, SpecialValuesOfEveryFloatingType) {
  for (const auto& [type_a, bits_a] : kSpecialBits) {
    for (const auto& [type_b, bits_b] : kSpecialBits) {
      for (std::size_t x = 0; x < kSpecialTexts.size(); ++x) {
        for (std::size_t y = 0; y < kSpecialTexts.size(); ++y) {
          for (const double tolerance : {0.0, 0.5}) {
            SCOPED_TRACE(type_a + " " + kSpecialTexts[x] + ", " + type_b + " " + kSpecialTexts[y]);
            const auto found = diff(*special(type_a, x), *special(type_b, y), {.tolerance = tolerance});
            const bool zeros = x >= 4 && y >= 4;
            ASSERT_EQ(found.size(), x == y || zeros ? 0U : 1U);
            if (found.empty()) {
              continue;
            }
            const bool finite = (x == 0 || x >= 4) && (y == 0 || y >= 4);
            EXPECT_EQ(found[0].what, std::string("1 of 6 elements") + (finite ? ", by 2 at most; " : "; ") +
                                         kSpecialTexts[x] + " against " + kSpecialTexts[y] + " at [1, 2]");
          }
        }
      }
    }
  }
}

/// A float64 tensor of any shape.
std::unique_ptr<Checkpoint> doubles(const std::vector<double>& values,
                                    const std::vector<std::int64_t>& shape) {
  const auto bytes = std::as_bytes(std::span(values));
  auto checkpoint = std::make_unique<MemoryCheckpoint>();
  checkpoint->add("values", "F64", shape, {bytes.begin(), bytes.end()});
  return checkpoint;
}

TEST(Diff, Float64IsNotRounded) {
  const auto what = [](double x, double y, double tolerance) {
    const auto found = diff(*doubles({x}, {}), *doubles({y}, {}), {.tolerance = tolerance});
    return found.empty() ? "" : found[0].what;
  };
  EXPECT_EQ(what(1, 1.5, 0), "1 of 1 elements, by 0.5 at most; 1 against 1.5");
  EXPECT_NE(what(1, 1 + 1e-12, 0), "");
  EXPECT_EQ(what(1, 1 + 1e-12, 1e-9), "");
  EXPECT_NE(what(1e300, 2e300, 0.25), "");  // both infinite as float32
  EXPECT_EQ(what(1e300, 2e300, 0.75), "");
  EXPECT_NE(what(1.7e308, -1.7e308, 1), "");  // their difference overflows
}

TEST(Diff, ShowsTheFirstPairThatIsNotFinite) {
  const double nan = std::nan("");
  const auto found = diff(*doubles({1, 2, nan, 4}, {4}), *doubles({1.5, 2, 3, nan}, {4}));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].what, "3 of 4 elements, by 0.5 at most; NaN against 3 at [2]");
}

TEST(Diff, OtherElementsByTheirBytes) {
  for (const auto& [type, size] : {std::pair{"U8", 1}, {"I64", 8}, {"F8_E4M3", 1}}) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(6 * size));
    MemoryCheckpoint a;
    a.add("values", type, {2, 3}, bytes);
    for (const std::size_t place : {std::size_t{4}, std::size_t{5}}) {
      bytes[place * static_cast<std::size_t>(size)] = std::byte{0x7f};
    }
    MemoryCheckpoint b;
    b.add("values", type, {2, 3}, bytes);
    EXPECT_TRUE(diff(b, b).empty()) << type;
    const auto found = diff(a, b, {.tolerance = 1});
    ASSERT_EQ(found.size(), 1U) << type;
    EXPECT_EQ(found[0].what, "2 of 6 elements; the first at [1, 1]");
  }
}

TEST(Convert, CountsWhatWasWritten) {
  std::mt19937 random(1);
  const TestFolder folder;
  MemoryCheckpoint model;
  model.add("a.weight", random_matrix(random, 8, 256, false));
  model.add("b.weight", random_matrix(random, 8, 256, false));
  model.add("b.bias", {8}, std::vector<float>(8));
  model.set_metadata("huggingface.config", "{}");
  for (const Format format : {Format::trit, Format::gguf, Format::huggingface}) {
    ConvertOptions options{.to = format};
    const Converted all = convert(model, folder / std::string(name_of(format)), options);
    EXPECT_EQ(all.tensors, 3U);
    EXPECT_EQ(all.ternary, 2U);
    options.names = NameMap::parse(R"json({"b.*": null})json", "map");
    const Converted some = convert(model, folder / (std::string(name_of(format)) + "-some"), options);
    EXPECT_EQ(some.tensors, 1U);
    EXPECT_EQ(some.ternary, 1U);
  }
}

/// For one scope: files of at most `bytes`. A write beyond fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &saved_);
    const rlimit limit{bytes, saved_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &saved_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit saved_{};
  void (*handler_)(int);
};

std::vector<ConvertOptions> every_target() {
  std::vector<ConvertOptions> options(4);
  options[1].to = Format::gguf;
  options[2].to = Format::huggingface;
  options[3].to = Format::huggingface;
  options[3].shard_bytes = 150'000;
  return options;
}

TEST(Convert, AFullDiskLeavesNothingBehind) {
  std::mt19937 random(1);
  MemoryCheckpoint model;
  for (int i = 0; i < 8; ++i) {
    model.add("layer." + std::to_string(i) + ".weight", random_matrix(random, 256, 1024, false));
  }
  for (const ConvertOptions& options : every_target()) {
    const TestFolder folder;
    {
      const FileSizeLimit limit(90'000);
      expect_error([&] { convert(model, folder / "x", options); },
                   {"cannot be written", "it took ", "make room there, or write elsewhere"});
    }
    EXPECT_TRUE(folder.names().empty()) << folder.names().front();
  }
}

TEST(Convert, AnExceptionFromTheProgressEndsIt) {
  std::mt19937 random(1);
  MemoryCheckpoint model;
  model.add("a.weight", random_matrix(random, 256, 1024, false));
  model.add("b.weight", random_matrix(random, 256, 1024, false));
  for (ConvertOptions& options : every_target()) {
    const TestFolder folder;
    std::uint64_t last = 0;
    std::uint64_t total = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t all) {
      EXPECT_GE(done, last);
      last = done;
      total = all;
    };
    convert(model, folder / "x", options);
    EXPECT_EQ(total, 2 * (65536U + 4U));
    EXPECT_GE(last, 2 * 65536U);
    const auto before = folder.names();
    options.progress = [&](std::uint64_t done, std::uint64_t) {
      if (done > 0) {
        throw std::runtime_error("stop");
      }
    };
    EXPECT_THROW(convert(model, folder / "y", options), std::runtime_error);
    EXPECT_EQ(folder.names(), before);
  }
}

TEST(Open, ForeignFiles) {
  const TestFolder folder;
  const auto refused = [&](const std::string& bytes, const std::vector<std::string>& parts) {
    test::write_file(folder / "x", bytes);
    expect_error([&] { open_checkpoint(folder / "x"); }, parts);
  };
  using namespace std::string_literals;
  const std::string zip = "PK\x03\x04"s + std::string(22, '\0');
  const auto first_file = [&](const std::string& name) {
    return zip + static_cast<char>(name.size()) + std::string(3, '\0') + name;
  };
  const std::vector<std::pair<std::string, std::string>> kinds{
      {"", "an empty file (0 bytes)"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 10\n",
       "a Git LFS pointer, not the model itself; run `git lfs pull`"},
      {"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"},
      {"\n  <HTML lang=\"en\">", "an HTML page"},
      {"<?xml version=\"1.0\"?><Error/>", "an XML document"},
      {"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}"s, "a NumPy array (.npy)"},
      {first_file("x.npy"), "a NumPy archive (.npz)"},
      {first_file("archive/data.pkl"), "a PyTorch file (torch.save)"},
      {first_file("readme.txt"), "a ZIP archive"},
      {"PK\x03\x04rest", "a ZIP archive"},
      {"\x80\x02\x8a\x0al\xfc\x9cz\xf9 j\xa8P\x19."s, "a PyTorch file (torch.save)"},
      {"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94."s, "a Python pickle"},
      {"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"s, "a gzip archive"},
      {"\x28\xb5\x2f\xfd\x04"s, "a Zstandard archive"},
      {"\xfd"
       "7zXZ\0\0"s,
       "an XZ archive"},
      {"BZh91AY", "a bzip2 archive"},
      {std::string(257, 'x') + "ustar" + std::string(250, '\0'), "a tar archive"},
      {"\x89HDF\r\n\x1a\n", "an HDF5 file"},
      {"{\"model_type\": \"llama\"}", "JSON text"},
      {"tjgg\1\0\0\0"s, "ggml from before GGUF"}};
  for (const auto& [bytes, name] : kinds) {
    refused(bytes, {folder.path().string(), name, "wanted GGUF version 3, safetensors, or a folder"});
    expect_error([&] { SafetensorsFile::open(folder / "x"); },
                 {folder.path().string(), name, "wanted a safetensors file"});
  }
  test::write_file(folder / "x", "GGUF\3\0\0\0"s + std::string(64, '\0'));
  expect_error([&] { SafetensorsFile::open(folder / "x"); },
               {"a GGUF file", "trit convert", "wanted a safetensors file"});
  refused("GG", {"2 bytes"});
  refused("no format at all", {"a header of "});
  // The first bytes of a file of tensors are a length, which may look like anything.
  const std::string header = "{}" + std::string(0x8b1f - 2, ' ');
  test::write_file(folder / "x", "\x1f\x8b\0\0\0\0\0\0"s + header);
  EXPECT_TRUE(open_checkpoint(folder / "x")->tensors().empty());
  expect_error([&] { open_checkpoint(folder / "missing"); }, {"missing", "cannot be read"});
}

}  // namespace
}  // namespace trit::io
