// SPDX-License-Identifier: MIT
//
// What the command line of train_cifar10 refuses: exit code 2, and a message that names the option.
#include "train_cifar10/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace trit::train {
namespace {

void expect_refused(std::vector<std::string> arguments, const std::string& says) {
  SCOPED_TRACE(testing::PrintToString(arguments));
  arguments.insert(arguments.begin(), "train_cifar10");
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  EXPECT_EXIT(parse_command_line(static_cast<int>(argv.size()), argv.data()), testing::ExitedWithCode(2),
              says);
}

TEST(OptionsDeathTest, RefuseWhatIsNoNumberOrOutOfRange) {
  const std::vector<std::string> integers{"--train-images", "--epochs", "--batch-size", "--seed",
                                          "--threads"};
  const std::vector<std::string> numbers{"--lr",
                                         "--conv-lr-factor",
                                         "--weight-decay",
                                         "--clip",
                                         "--label-smoothing",
                                         "--warmup-epochs",
                                         "--checkpoint-seconds"};
  const std::vector<std::string> texts{"nan", "-nan", "inf", "-inf", "-1", "", " ", "x", "3x", "0x", "1,5"};
  for (const auto* const options : {&integers, &numbers}) {
    for (const std::string& option : *options) {
      expect_refused({option}, option);  // no value
      for (const std::string& text : texts) {
        expect_refused({option + "=" + text}, option);
      }
    }
  }
  for (const std::string& option : integers) {
    for (const char* const text : {"1.5", "1e3", "1e-3", "99999999999999999999"}) {
      expect_refused({option + "=" + text}, option);
    }
  }
  for (const std::string& option : numbers) {
    expect_refused({option + "=1e999"}, option);
  }
  expect_refused({"--epochs", "0"}, "--epochs");
}

TEST(OptionsDeathTest, RefuseUnknownNamesAndEmptyPaths) {
  expect_refused({"--nonsense"}, "--nonsense");
  expect_refused({"--linear", "quaternary"}, "--linear");
  for (const char* const scale : {"column", "group", "group:0", "group:100", "group:032"}) {
    expect_refused({"--scale", scale}, "--scale");
  }
  for (const char* const option : {"--out", "--data", "--metrics", "--predictions"}) {
    expect_refused({std::string(option) + "="}, option);
    expect_refused({option, "-"}, "name a file");
  }
  for (const char* const device : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"}) {
    expect_refused({"--device", device}, "wanted auto, cpu, cuda or cuda:N");
  }
}

}  // namespace
}  // namespace trit::train
