// SPDX-License-Identifier: MIT
//
// The recipe: epochs of steps, an evaluation after each, checkpoints, and the export at the end. The device
// matters only to the step runner.
#include "train_cifar10/trainer.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <future>
#include <memory>
#include <optional>

#include "common/progress.h"
#include "train_cifar10/checkpoint.h"
#include "train_cifar10/data.h"
#include "train_cifar10/export.h"
#include "train_cifar10/hints.h"
#include "train_cifar10/output_paths.h"
#include "train_cifar10/processes.h"
#include "train_cifar10/run_folder.h"
#include "train_cifar10/run_log.h"
#include "train_cifar10/schedule.h"
#include "train_cifar10/step_runner.h"
#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::train {
namespace {

using Clock = std::chrono::steady_clock;

// So many consecutive skipped steps mean that the run is lost. A loss scaler that starts at 65,536 may skip
// about 20 before it has found its scale.
constexpr std::int64_t kMaxSkipped = 50;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// read(), which takes the state of a checkpoint apart; a checkpoint of another version may lack something.
template <typename Read>
auto read_state(const std::filesystem::path& out, const Read& read) {
  try {
    return read();
  } catch (const nlohmann::json::exception& error) {
    throw Error(
        fmt::format("{}: the state of its checkpoint cannot be read: {}", out.string(), error.what()));
  }
}

nlohmann::ordered_json constants(const TrainOptions& options, const TrainingData& data,
                                 const Processes& processes) {
  return {{"dataset", apps::name_of(options.dataset)},
          {"train_images", data.images},
          {"linear", name_of(options.linear)},
          {"backward", name_of(options.backward)},
          {"scale", options.scale},
          {"precision", name_of(options.precision)},
          {"device", processes.device().str()},
          {"processes", processes.part().count},
          {"threads", at::get_num_threads()},
          {"batch_size", options.batch_size},
          {"seed", options.seed}};
}

class Run {
 public:
  /// `folder` and `checkpoint` are those of a resumed run, in the first process. A new run makes its folder
  /// after everything else, so that a run that cannot begin leaves nothing behind.
  Run(TrainOptions options, const Processes& processes, std::unique_ptr<RunFolder> folder,
      const std::optional<Checkpoint>& checkpoint);
  int run();

 private:
  bool train_epoch();  // false: interrupted, as finish_epoch()
  bool finish_epoch();
  void check_skipped(std::int64_t max_skipped) const;
  std::string what_may_help() const;
  void restore(const Checkpoint& checkpoint);
  void take_from_first(const std::string& common);
  void save();
  void finish();
  std::int64_t steps() const { return data_.batches * options_.epochs; }

  TrainOptions options_;
  const Processes& processes_;
  std::future<TrainingData> loading_;  // while the learner starts the GPU
  Learner learner_;
  TrainingData data_;
  std::unique_ptr<RunFolder> folder_;  // in the first process
  CheckpointStore store_;
  Position position_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<RunLog> log_;
  Clock::time_point last_save_ = Clock::now();
  std::optional<Evaluation> last_evaluation_;
};

Run::Run(TrainOptions options, const Processes& processes, std::unique_ptr<RunFolder> folder,
         const std::optional<Checkpoint>& checkpoint)
    : options_(std::move(options)),
      processes_(processes),
      loading_(std::async(std::launch::async, [this] { return load_data(options_); })),
      learner_(options_, processes),
      data_(loading_.get()),
      folder_(std::move(folder)),
      store_(options_.out / "checkpoints") {
  const std::string common = processes_.from_first([&] {
    if (!folder_) folder_ = std::make_unique<RunFolder>(options_.out, /*resume=*/false);
    if (checkpoint) read_state(options_.out, [&] { restore(*checkpoint); });
    return nlohmann::json{{"fingerprint", data_.fingerprint}, {"position", to_json(position_)}}.dump();
  });
  if (processes_.several()) take_from_first(common);
  runner_ = make_step_runner(options_, processes_, data_, learner_);
  log_ = std::make_unique<RunLog>(options_, steps(), constants(options_, data_, processes_), position_);
  say(fmt::format("{}: {} training and {} test images; {} linear layers, {}, {}, {} threads, seed {}",
                  apps::name_of(options_.dataset), data_.images, data_.test.count(), name_of(options_.linear),
                  name_of(options_.precision), learner_.device().str(), at::get_num_threads(),
                  options_.seed) +
      (processes_.several()
           ? fmt::format(", {} processes, timeout {} s", processes_.part().count, options_.timeout)
           : ""));
  if (checkpoint) {
    say(fmt::format("resuming after epoch {}, batch {} of {}", position_.epoch, position_.batch,
                    data_.batches));
  }
}

void Run::restore(const Checkpoint& checkpoint) {
  if (checkpoint.state.at("fingerprint") != data_.fingerprint) {
    throw Error(fmt::format("--data: the run in {} was started with other images", options_.out.string()));
  }
  if (const int threads = checkpoint.state.at("threads"); threads != at::get_num_threads()) {
    warn(fmt::format("{} threads now, {} before: the result will not be bit-identical", at::get_num_threads(),
                     threads));
  }
  const int processes = checkpoint.state.value("processes", 1);
  if (const int now = processes_.part().count; processes != now) {
    warn(fmt::format("{} process{} now, {} before: the result will not be bit-identical", now,
                     now == 1 ? "" : "es", processes));
  }
  learner_.restore(checkpoint.tensors, checkpoint.state.at("scaler"));
  position_ = position_from_json(checkpoint.state.at("position"));
}

void Run::take_from_first(const std::string& common) {
  const nlohmann::json state = nlohmann::json::parse(common);
  if (state.at("fingerprint") != data_.fingerprint) throw Error("--data: other images than rank 0 has");
  position_ = position_from_json(state.at("position"));
  learner_.take_from_first(processes_.group());
}

void Run::save() {
  if (!processes_.first()) return;
  // Parameters that give no finite loss may be lost already: keep the earlier checkpoints. A run that resumes
  // from there takes the same steps again.
  if (position_.skipped > 0) return;
  store_.save(position_.step, {.state = {{"options", to_json(options_)},
                                         {"fingerprint", data_.fingerprint},
                                         {"threads", at::get_num_threads()},
                                         {"processes", processes_.part().count},
                                         {"scaler", learner_.scaler_state()},
                                         {"position", to_json(position_)}},
                               .tensors = learner_.tensors()});
  last_save_ = Clock::now();
}

void Run::check_skipped(std::int64_t max_skipped) const {
  if (max_skipped < kMaxSkipped) return;
  const std::string where =
      max_skipped == position_.skipped
          ? " from " + describe_step(position_.step - position_.skipped + 1, data_.batches) + " on"
          : fmt::format(" in epoch {}", position_.epoch + 1);
  throw Error(fmt::format("the loss or its gradient was not finite for {} steps in a row{}; {}", max_skipped,
                          where, what_may_help()));
}

bool Run::train_epoch() {
  std::optional<apps::Progress> progress;
  if (processes_.first()) {
    progress.emplace(fmt::format("epoch {}/{}", position_.epoch + 1, options_.epochs), data_.images,
                     "images");
  }
  const auto start = Clock::now();
  const double seconds_before = position_.seconds;
  runner_->begin_epoch(position_);
  while (position_.batch < data_.batches) {
    const auto [count, sums] =
        runner_->run(std::min(log_->steps_to_event(position_.step), data_.batches - position_.batch));
    position_.add(count, sums);
    check_skipped(sums.max_skipped);
    log_->step(position_.step, sums.last_loss, learning_rate(options_, data_.batches, position_.step - 1));
    position_.seconds = seconds_before + seconds_since(start);
    if (progress) {
      progress->update(
          std::min(data_.images, position_.batch * options_.batch_size),
          fmt::format("loss {:.3f}  accuracy {:.1f} %", position_.mean_loss(), position_.accuracy()));
    }
    const bool stop = processes_.any(apps::interrupted());
    if (stop || seconds_since(last_save_) >= options_.checkpoint_seconds) save();
    if (stop) return false;
  }
  return true;
}

bool Run::finish_epoch() {
  const bool scaled = options_.precision == Precision::fp16;
  if (const std::string lost = lost_epoch(position_, data_.batches, scaled); !lost.empty())
    throw Error(lost + "; " + what_may_help());
  Evaluation evaluation = runner_->evaluate(apps::interrupted);
  if (processes_.any(apps::interrupted())) {
    save();
    return false;
  }
  const EpochMetrics metrics{.epoch = position_.epoch + 1,
                             .train_loss = position_.mean_loss(),
                             .train_accuracy = position_.accuracy(),
                             .test_loss = evaluation.loss,
                             .test_accuracy = evaluation.accuracy,
                             .seconds = position_.seconds,
                             .images_per_second = static_cast<double>(data_.images) / position_.seconds,
                             .learning_rate = learning_rate(options_, data_.batches, position_.step - 1)};
  last_evaluation_ = std::move(evaluation);
  position_.history.push_back(metrics);
  position_ = {.epoch = position_.epoch + 1,
               .batch = 0,
               .step = position_.step,
               .skipped = position_.skipped,
               .history = std::move(position_.history)};
  save();  // before the metrics: a resumed run rewrites the lines that its checkpoint has
  log_->epoch(metrics, position_.step);
  return true;
}

void Run::finish() {
  if (!last_evaluation_) last_evaluation_ = runner_->evaluate([] { return false; });
  if (position_.skipped >= position_.step) {
    throw Error("no step of the run had a finite gradient: no model is written; " + what_may_help());
  }
  if (!std::isfinite(last_evaluation_->loss)) {
    throw Error(fmt::format("the test loss is {} after the last epoch: no model is written; {}",
                            last_evaluation_->loss, what_may_help()));
  }
  if (!processes_.first()) return;
  const std::filesystem::path path = folder_->model();
  export_model(path, learner_.network(), data_.test);
  if (!options_.predictions.empty()) {
    std::string text;
    for (const std::uint8_t prediction : last_evaluation_->predictions)
      text += fmt::format("{}\n", prediction);
    const std::span<const std::byte> parts[] = {std::as_bytes(std::span(text))};
    io::write_file_atomically(options_.predictions, parts);
  }
  const std::string name(apps::name_of(options_.dataset));
  say(fmt::format("{}: test accuracy {:.2f} % of {} images", name, last_evaluation_->accuracy,
                  data_.test.count()));
  if (const std::string note = note_on_accuracy(options_.dataset, last_evaluation_->accuracy, steps());
      !note.empty())
    say(note);
  say(fmt::format("{}: exported {}, {} bytes", name, path.string(), std::filesystem::file_size(path)));
  for (const std::string& line : closing_hints(options_)) say(line);
}

std::string Run::what_may_help() const {
  std::string advice = "start another run with a lower --lr or with --clip";
  if (!processes_.first() || store_.files().empty()) return advice;
  return fmt::format("{}. Earlier checkpoints are in {}", advice, (options_.out / "checkpoints").string());
}

int Run::run() {
  while (position_.epoch < options_.epochs) {
    if (!train_epoch() || !finish_epoch()) {
      if (processes_.first()) {
        say(store_.files().empty() ? "interrupted before the first checkpoint"
                                   : "interrupted; resume with: " + resume_command(options_));
      }
      return 130;
    }
  }
  finish();
  processes_.any(false);  // the first process, which may host the others' store, ends last
  return 0;
}

}  // namespace

int train(TrainOptions options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  const Processes processes(options);
  if (!processes.first()) be_silent();
  std::unique_ptr<RunFolder> folder;
  std::optional<Checkpoint> checkpoint;
  const std::string recorded = processes.from_first([&] {
    if (options.resume) {
      folder = std::make_unique<RunFolder>(options.out, /*resume=*/true);
      checkpoint = CheckpointStore(folder->checkpoints()).load_newest(warn);
      if (!checkpoint) {
        throw Error(fmt::format("no run in {} to resume: it has no checkpoint", options.out.string()));
      }
      options = read_state(folder->path(), [&] {
        return resume_options(std::move(options), checkpoint->state.at("options"));
      });
    }
    check_output_paths(options);
    return to_json(options).dump();
  });
  if (!processes.first()) {
    options.given.clear();  // the first process has compared them
    options = resume_options(std::move(options), nlohmann::json::parse(recorded));
  }
  return Run(std::move(options), processes, std::move(folder), checkpoint).run();
}

}  // namespace trit::train
