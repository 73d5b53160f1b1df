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
#include <limits>
#include <sstream>

#include "train_cifar10/hints.h"
#include "train_cifar10/metrics.h"
#include "train_cifar10/options.h"
#include "train_cifar10/output_paths.h"
#include "train_cifar10/position.h"
#include "train_cifar10/run_folder.h"
#include "train_cifar10/run_log.h"
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
  std::ofstream(path / "checkpoints" / "checkpoint-0000000001.safetensors") << "c";
  EXPECT_NE(error_of([&] { RunFolder(path, false); }).find("--resume"), std::string::npos);
  EXPECT_EQ(error_of([&] { RunFolder(path, true); }), "");
  EXPECT_EQ(content(path / "metrics.jsonl"), "{}\n");
}
TEST_F(RunFolderTest, StartsOverAfterARunWithoutACheckpoint) {
  { const RunFolder folder(path, false); }
  std::ofstream(path / "metrics.jsonl").flush();
  std::ofstream(path / "events.out.tfevents.0000000001.host.1.0") << "events";
  std::ofstream(path / "checkpoints" / "checkpoint-0000000001.safetensors.tmp-17-0") << "half";
  EXPECT_NE(error_of([&] { RunFolder(path, true); }).find("it has no checkpoint"), std::string::npos);
  { const RunFolder folder(path, false); }
  EXPECT_TRUE(std::filesystem::is_empty(path / "checkpoints"));
  EXPECT_FALSE(std::filesystem::exists(path / "events.out.tfevents.0000000001.host.1.0"));
  std::ofstream(path / "metrics.jsonl") << "{}\n";  // a finished epoch is something to lose
  EXPECT_NE(error_of([&] { RunFolder(path, false); }).find("metrics.jsonl"), std::string::npos);
}
TEST_F(RunFolderTest, RefusesToResumeWithoutARunAndCreatesNothing) {
  EXPECT_NE(error_of([&] { RunFolder(path, true); }).find("there is no such folder"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(path));
  std::filesystem::create_directories(path);
  EXPECT_NE(error_of([&] { RunFolder(path, true); }).find("no run in " + path.string()), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_empty(path));
}
TEST_F(RunFolderTest, DoesNotTouchAForeignFolder) {
  std::filesystem::create_directories(path);
  // Another program's curves are not a remnant of ours.
  for (const char* name : {"thesis.tex", "events.out.tfevents.0000000001.host.1.0"}) {
    std::ofstream(path / name) << "precious";
    EXPECT_NE(error_of([&] { RunFolder(path, false); }).find(name), std::string::npos);
    EXPECT_EQ(content(path / name), "precious");
    std::filesystem::remove(path / name);
    EXPECT_TRUE(std::filesystem::is_empty(path));
  }
}
TEST_F(RunFolderTest, IsForOneProcess) {
  const RunFolder folder(path, false);
  const pid_t child = fork();
  if (child == 0) {
    _exit(error_of([&] { RunFolder(path, false); }).find("another process") == std::string::npos ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}
TEST_F(RunFolderTest, RemovesTemporaryFilesOfAKilledWriter) {
  { const RunFolder folder(path, false); }
  const auto checkpoint = path / "checkpoints" / "checkpoint-0000000001.safetensors";
  std::ofstream(checkpoint) << "whole";
  std::ofstream(checkpoint.string() + ".tmp-17-0") << "half";
  std::ofstream(path / "model.safetensors.tmp-17-1") << "half";
  { const RunFolder folder(path, true); }
  EXPECT_TRUE(std::filesystem::exists(checkpoint));
  EXPECT_FALSE(std::filesystem::exists(checkpoint.string() + ".tmp-17-0"));
  EXPECT_FALSE(std::filesystem::exists(path / "model.safetensors.tmp-17-1"));
}
TEST_F(RunFolderTest, ReportsWhyItCannotBeCreated) {
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
TEST_F(MetricsTest, WriteNonFiniteValuesAsNull) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const EpochMetrics lost{.epoch = 3,
                          .train_loss = nan,
                          .train_accuracy = nan,
                          .test_loss = infinity,
                          .test_accuracy = -infinity,
                          .seconds = 0.0,
                          .images_per_second = infinity,
                          .learning_rate = 1e30};
  const auto json = nlohmann::json::parse(to_json(lost).dump());
  for (const char* key :
       {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "images_per_second"}) {
    EXPECT_TRUE(json.at(key).is_null()) << key;
  }
  const EpochMetrics read = metrics_from_json(json);
  EXPECT_EQ(read.epoch, 3);
  EXPECT_EQ(read.learning_rate, 1e30);
  for (const double value :
       {read.train_loss, read.train_accuracy, read.test_loss, read.test_accuracy, read.images_per_second}) {
    EXPECT_TRUE(std::isnan(value));
  }
  // As a checkpoint keeps it.
  const Position position{.epoch = 3, .step = 9, .history = {lost}};
  const Position restored = position_from_json(nlohmann::json::parse(to_json(position).dump()));
  ASSERT_EQ(restored.history.size(), 1U);
  EXPECT_TRUE(std::isnan(restored.history[0].test_loss));
}
TEST_F(MetricsTest, DoNotOverwriteAForeignFile) {
  std::filesystem::create_directories(path);
  std::ofstream(path / "notes.txt") << "mine";
  EXPECT_NE(error_of([&] { MetricsFile(path / "notes.txt", {}, {}); }).find("notes.txt"), std::string::npos);
  EXPECT_EQ(content(path / "notes.txt"), "mine");
}

TEST_F(MetricsTest, EventsAreEveryStepOfAShortRunAndEvery50thOfALongOne) {
  std::filesystem::create_directories(path);
  TrainOptions options;
  options.out = path;
  const RunLog short_run(options, 1000, {}, {});
  for (const std::int64_t step : {0, 1, 49, 998, 999}) {
    EXPECT_EQ(short_run.steps_to_event(step), 1) << step;
  }
  const RunLog long_run(options, 1101, {}, {});
  EXPECT_EQ(long_run.steps_to_event(0), 1);
  EXPECT_EQ(long_run.steps_to_event(1), 49);
  EXPECT_EQ(long_run.steps_to_event(50), 50);
  EXPECT_EQ(long_run.steps_to_event(1049), 1);
  EXPECT_EQ(long_run.steps_to_event(1090), 10);
  EXPECT_EQ(long_run.steps_to_event(1100), 1);
}

TEST(Position, AddsTheSumsOfSteps) {
  Position position{.epoch = 1, .batch = 2, .step = 12, .loss_sum = 10.0, .loss_images = 20, .correct = 5};
  position.add(3, {.loss_sum = 6.0, .loss_images = 12, .correct = 3, .skipped = 1, .max_skipped = 2});
  EXPECT_EQ(position.epoch, 1);
  EXPECT_EQ(position.batch, 5);
  EXPECT_EQ(position.step, 15);
  EXPECT_EQ(position.skipped, 1);
  EXPECT_EQ(position.mean_loss(), 0.5);
  EXPECT_EQ(position.accuracy(), 25.0);
  position.add(1, {});  // a step that is taken ends the sequence of skipped ones
  EXPECT_EQ(position.skipped, 0);
}

TEST(Position, AnEpochOfSkippedStepsIsLost) {
  constexpr std::int64_t kBatches = 4;
  Position position{.epoch = 2, .batch = kBatches, .step = 12, .skipped = 3, .loss_images = 50};
  EXPECT_EQ(lost_epoch(position, kBatches, false), "");  // one of four was taken
  position.skipped = 4;
  EXPECT_NE(lost_epoch(position, kBatches, false).find("step 9 (epoch 3, batch 1)"), std::string::npos)
      << lost_epoch(position, kBatches, false);
  EXPECT_EQ(lost_epoch(position, kBatches, true), "");  // a loss scaler looks for its scale
  position.skipped = 6;                                 // since the epoch before
  EXPECT_NE(lost_epoch(position, kBatches, false).find("step 7 (epoch 2, batch 3)"), std::string::npos);
  position.loss_images = 0;  // no scale makes a loss finite
  EXPECT_NE(lost_epoch(position, kBatches, true), "");
  EXPECT_TRUE(std::isnan(position.mean_loss()) && std::isnan(position.accuracy()));
}

using OutputPathsTest = Folder;
TEST_F(OutputPathsTest, AreCheckedBeforeTheRun) {
  std::filesystem::create_directories(path / "folder");
  std::ofstream(path / "file") << "content";
  TrainOptions options;
  options.out = path / "run";  // not there yet
  const auto error = [&](const std::filesystem::path& metrics, const std::filesystem::path& predictions) {
    options.metrics = metrics;
    options.predictions = predictions;
    return error_of([&] { check_output_paths(options); });
  };
  EXPECT_EQ(error("", ""), "");
  EXPECT_EQ(error(options.out / "m.jsonl", options.out / "p.txt"), "");
  EXPECT_EQ(error(path / "m.jsonl", path / "file"), "");
  EXPECT_EQ(error("/dev/stdout", ""), "");
  const auto expect = [&](const std::string& text, const std::string& needle) {
    EXPECT_NE(text.find(needle), std::string::npos) << text;
  };
  for (const char* place : {"nowhere/x", "file/x", "run/deeper/x"}) {
    expect(error("", path / place), "--predictions " + (path / place).string() + ": there is no folder");
    expect(error(path / place, ""), "--metrics " + (path / place).string() + ": there is no folder");
  }
  expect(error("", path / "folder"), "is a folder");
  expect(error(path / "folder", ""), "is a folder");
  expect(error("", "/dev/null"), "--predictions /dev/null: is a device");
  expect(error(path / "file", ""), "has content");
  expect(error(path / "one", path / "folder" / ".." / "one"), "another file");
  expect(error("", options.out / "model.safetensors"), "another file");
  options.resume = true;  // its own metrics of before
  EXPECT_EQ(error(path / "file", ""), "");
  EXPECT_FALSE(std::filesystem::exists(options.out));
}

TEST(Hints, AreCommandsThatAShellTakes) {
  EXPECT_EQ(shell_quoted("runs/a-1.b"), "runs/a-1.b");
  EXPECT_EQ(shell_quoted("my runs/it's"), "'my runs/it'\\''s'");
  EXPECT_EQ(shell_quoted(""), "''");
  EXPECT_EQ(find_program("no-such-program-of-trit"), "");
  TrainOptions options;
  options.out = "my runs/a";
  options.data = "images";
  options.threads = 2;
  options.given = {"out", "data", "threads", "epochs"};
  const std::string command = resume_command(options);
  EXPECT_TRUE(command.ends_with(" --out 'my runs/a' --resume --data images --threads 2")) << command;
}

TEST(Hints, ExplainAnAccuracyCloseToChance) {
  EXPECT_NE(note_on_accuracy(apps::DatasetName::drawn, 10.0, 32).find("99.7 %"), std::string::npos);
  EXPECT_EQ(note_on_accuracy(apps::DatasetName::drawn, 51.0, 79), "");
}

TEST(Schedule, HasTheExpectedValues) {
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

TEST(ResumeOptions, UsesRecordedValuesAndNamesContradictions) {
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
