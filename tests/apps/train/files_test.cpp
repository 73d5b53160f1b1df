// SPDX-License-Identifier: MIT
//
// What a run writes beside checkpoints: the folder and its lock, metrics; and the schedule and options that
// decide it.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "train_cifar10/metrics.h"
#include "train_cifar10/options.h"
#include "train_cifar10/run_folder.h"
#include "train_cifar10/schedule.h"
#include "trit/error.h"

namespace trit::train {
namespace {

class Folder : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(path); }
  void TearDown() override { std::filesystem::remove_all(path); }
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / ("trit-files-test-" + std::to_string(getpid()));
};

std::string content(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}
std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

using RunFolderTest = Folder;
TEST_F(RunFolderTest, RefusesContentUnlessResumed) {
  { const RunFolder folder(path, false); }
  { const RunFolder again(path, false); }  // only the lock and an empty folder: nothing to lose
  std::ofstream(path / "metrics.jsonl") << "{}\n";
  EXPECT_NE(error_of([&] { RunFolder(path, false); }).find("--resume"), std::string::npos);
  EXPECT_EQ(error_of([&] { RunFolder(path, true); }), "");
  EXPECT_EQ(content(path / "metrics.jsonl"), "{}\n");
}
TEST_F(RunFolderTest, IsForOneProcess) {
  const RunFolder folder(path, false);
  const pid_t child = fork();
  if (child == 0) {
    _exit(error_of([&] { RunFolder(path, true); }).find("another process") == std::string::npos ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}
TEST_F(RunFolderTest, RemovesWhatAKilledWriterLeft) {
  { const RunFolder folder(path, false); }
  std::ofstream(path / "checkpoints" / "checkpoint-0000000001.safetensors.tmp-17-0") << "half";
  std::ofstream(path / "model.safetensors.tmp-17-1") << "half";
  { const RunFolder folder(path, true); }
  EXPECT_TRUE(std::filesystem::is_empty(path / "checkpoints"));
  EXPECT_FALSE(std::filesystem::exists(path / "model.safetensors.tmp-17-1"));
}
TEST_F(RunFolderTest, SaysWhyItCannotBeMade) {
  std::ofstream(path.string()) << "a file";
  EXPECT_NE(error_of([&] { RunFolder(path, false); }).find(path.string()), std::string::npos);
}

EpochMetrics epoch(std::int64_t number) {
  return {.epoch = number,
          .train_loss = 1.0 / 3.0,
          .train_accuracy = 12.5,
          .test_loss = 2.0,
          .test_accuracy = 50.25,
          .seconds = 9.5,
          .images_per_second = 5000.0,
          .learning_rate = 1e-3};
}

using MetricsTest = Folder;
TEST_F(MetricsTest, StartWithTheHistoryOfTheCheckpoint) {
  std::filesystem::create_directories(path);
  const auto file = path / "metrics.jsonl";
  MetricsFile first(file, {{"dataset", "drawn"}}, {});
  for (const int number : {1, 2, 3}) first.append(epoch(number));
  const std::string three = content(file);
  MetricsFile second(file, {{"dataset", "drawn"}}, {epoch(1), epoch(2)});  // resumed from the end of epoch 2
  second.append(epoch(3));
  EXPECT_EQ(content(file), three);

  std::istringstream lines(three);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const auto json = nlohmann::json::parse(line);
  for (const char* key :
       {"epoch", "train_loss", "train_accuracy", "test_accuracy", "seconds", "images_per_second"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json.at("dataset"), "drawn");
  EXPECT_EQ(metrics_from_json(json).train_loss, 1.0 / 3.0);  // every bit
}
TEST_F(MetricsTest, LeaveAForeignFileAlone) {
  std::filesystem::create_directories(path);
  std::ofstream(path / "notes.txt") << "mine";
  EXPECT_NE(error_of([&] { MetricsFile(path / "notes.txt", {}, {}); }).find("notes.txt"), std::string::npos);
  EXPECT_EQ(content(path / "notes.txt"), "mine");
}

TEST(Schedule, HasItsCorners) {
  TrainOptions options;
  options.learning_rate = 1.0;
  options.epochs = 10;
  options.warmup_epochs = 1.0;
  EXPECT_DOUBLE_EQ(learning_rate(options, 100, 0), 0.01);
  EXPECT_DOUBLE_EQ(learning_rate(options, 100, 99), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(options, 100, 100), 1.0);
  EXPECT_NEAR(learning_rate(options, 100, 550), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(options, 100, 999), 0.0, 1e-5);
  options.schedule = Schedule::constant;
  EXPECT_DOUBLE_EQ(learning_rate(options, 100, 999), 1.0);
  options.schedule =
      Schedule::onecycle;  // values of torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=1000)
  EXPECT_NEAR(learning_rate(options, 100, 0), 0.04, 1e-12);
  EXPECT_NEAR(learning_rate(options, 100, 299), 1.0, 1e-12);
  EXPECT_NEAR(learning_rate(options, 100, 649), 0.500002, 1e-9);
  EXPECT_NEAR(learning_rate(options, 100, 999), 4e-6, 1e-12);
  options.schedule = Schedule::cosine;
  options.warmup_epochs = 0.0;
  EXPECT_DOUBLE_EQ(learning_rate(options, 100, 0), 1.0);
  options.warmup_epochs = 2.0;
  options.epochs = 1;  // a fifth of 100 steps
  EXPECT_DOUBLE_EQ(learning_rate(options, 100, 0), 0.05);
  EXPECT_DOUBLE_EQ(learning_rate(options, 100, 20), 1.0);
}

TEST(ResumeOptions, TakesWhatWasRecordedAndNamesWhatContradicts) {
  TrainOptions start;
  start.seed = 7;
  start.batch_size = 64;
  start.linear = LinearKind::fp32;
  start.learning_rate = 0.1 + 0.2;
  const nlohmann::json recorded = nlohmann::json::parse(to_json(start).dump());

  EXPECT_EQ(to_json(resume_options({}, recorded)), to_json(start));  // nothing given: all of it is recorded

  TrainOptions other;
  other.seed = 8;
  other.given = {"seed"};
  EXPECT_NE(error_of([&] { resume_options(other, recorded); }).find("--seed 8"), std::string::npos);
  other.seed = 7;
  EXPECT_EQ(error_of([&] { resume_options(other, recorded); }), "");

  other.epochs = 30;
  other.given = {"epochs"};
  EXPECT_NE(error_of([&] { resume_options(other, recorded); }).find("--epochs"), std::string::npos);
  start.schedule = Schedule::constant;
  EXPECT_EQ(resume_options(other, to_json(start)).epochs, 30);
}

}  // namespace
}  // namespace trit::train
