// SPDX-License-Identifier: MIT
#include "train_cifar10/trainer.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>

#include "common/progress.h"
#include "common/standard_streams.h"
#include "train_cifar10/checkpoint.h"
#include "train_cifar10/evaluate.h"
#include "train_cifar10/export.h"
#include "train_cifar10/hints.h"
#include "train_cifar10/learner.h"
#include "train_cifar10/metrics.h"
#include "train_cifar10/output_paths.h"
#include "train_cifar10/position.h"
#include "train_cifar10/run_folder.h"
#include "train_cifar10/schedule.h"
#include "train_cifar10/tensorboard.h"
#include "trit/crc32c.h"
#include "trit/error.h"
#include "trit/safetensors.h"

#if TRIT_TORCH_CUDA
#include <c10/cuda/CUDAFunctions.h>

#include "train_cifar10/gpu/steps.h"
#endif

namespace trit::train {
namespace {

using Clock = std::chrono::steady_clock;

// A step whose loss or gradient is not finite is left out. So many in a row mean that the run is lost; a loss
// scaler that starts at 65,536 needs up to about 20 to find its scale.
constexpr std::int64_t kMostSkippedInARow = 50;

// TensorBoard's curve of the loss: every step of a short run, else every 50th; the first and the last always.
constexpr std::int64_t kShortRun = 1000, kStepsPerEvent = 50;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// To standard output. The files are the results: a line that cannot be written is dropped.
void say(const std::string& text) {
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}
void warn(const std::string& text) { apps::say("train_cifar10: warning: " + text); }

apps::ImageDataset load(const TrainOptions& options, apps::Split split) {
  const std::filesystem::path folder =
      options.data.empty() ? apps::default_folder(options.dataset) : options.data;
  try {
    return apps::load_dataset(options.dataset, split, folder);
  } catch (const Error& error) {
    throw Error(fmt::format("{}\n{}: `make data` fetches it; --data FOLDER names a copy", error.what(),
                            apps::name_of(options.dataset)));
  }
}

std::string fingerprint(const apps::ImageDataset& dataset) {
  return fmt::format("{:08x}", crc32c(std::as_bytes(std::span(dataset.labels)),
                                      crc32c(std::as_bytes(std::span(dataset.pixels)))));
}

std::int64_t images_of(const TrainOptions& options, const apps::ImageDataset& dataset) {
  if (options.train_images > dataset.count()) {
    throw Error(fmt::format("--train-images {}: {} has {}", options.train_images, apps::name_of(dataset.name),
                            dataset.count()));
  }
  return options.train_images == 0 ? dataset.count() : options.train_images;
}

/// Steps of a run of `steps` from `step` on to the next that TensorBoard shows, that one included.
std::int64_t steps_to_event(std::int64_t step, std::int64_t steps) {
  if (step == 0 || steps <= kShortRun) return 1;
  return std::min(kStepsPerEvent - step % kStepsPerEvent, std::max<std::int64_t>(1, steps - step));
}

/// read(), which takes a checkpoint's state apart: what another version of the program wrote may lack
/// something.
template <typename Read>
auto read_state(const std::filesystem::path& out, const Read& read) {
  try {
    return read();
  } catch (const nlohmann::json::exception& error) {
    throw Error(
        fmt::format("{}: the state of its checkpoint cannot be read: {}", out.string(), error.what()));
  }
}

class Run {
 public:
  /// `folder` and `checkpoint` of a run that is resumed; a new one makes its folder once everything else is
  /// there, so that a run that cannot begin leaves nothing behind.
  Run(TrainOptions options, std::unique_ptr<RunFolder> folder, std::optional<Checkpoint> checkpoint);
  int run();

 private:
  bool train_epoch();  // false: interrupted and saved, as all below
  bool train_epoch_on_gpu();
  Evaluation evaluation(const std::function<bool()>& stop);
  bool finish_epoch();
  void note_step(const Learner::StepResult& result, std::int64_t images, double learning_rate);
  void check_skipped(std::int64_t in_a_row) const;
  std::string what_may_help() const;
  void note_loss(double loss, double learning_rate);
  void show(apps::Progress& progress) const;
  void restore(const Checkpoint& checkpoint);
  void save();
  void finish();
  std::int64_t steps() const { return batches_ * options_.epochs; }
  nlohmann::ordered_json metrics_constants() const;

  TrainOptions options_;
  apps::ImageDataset train_, test_;
  std::int64_t images_, batches_;  // of an epoch
  std::string fingerprint_;
  Learner learner_;
#if TRIT_TORCH_CUDA
  std::optional<gpu::Images> gpu_train_, gpu_test_;
  std::optional<gpu::Steps> gpu_steps_;
#endif
  std::unique_ptr<RunFolder> folder_;
  CheckpointStore store_;
  Position position_;
  std::optional<MetricsFile> metrics_;
  std::optional<EventFile> events_;
  Clock::time_point last_save_ = Clock::now();
  std::optional<Evaluation> last_evaluation_;
};

Run::Run(TrainOptions options, std::unique_ptr<RunFolder> folder, std::optional<Checkpoint> checkpoint)
    : options_(std::move(options)),
      train_(load(options_, apps::Split::train)),
      test_(load(options_, apps::Split::test)),
      images_(images_of(options_, train_)),
      batches_(EpochBatches::count(images_, options_.batch_size)),
      fingerprint_(fingerprint(train_)),
      learner_(options_, device_from_name(options_.device)),
      folder_(folder ? std::move(folder) : std::make_unique<RunFolder>(options_.out, /*resume=*/false)),
      store_(folder_->checkpoints()) {
  if (checkpoint) read_state(options_.out, [&] { restore(*checkpoint); });
#if TRIT_TORCH_CUDA
  if (learner_.device().is_cuda()) {
    // Kernels of our own and the pool's streams are of the current GPU.
    if (learner_.device().has_index()) c10::cuda::set_device(learner_.device().index());
    gpu_train_.emplace(train_, learner_.device());
    gpu_test_.emplace(test_, learner_.device());
    gpu_steps_.emplace(options_, learner_, *gpu_train_, images_);
  }
#endif
  metrics_.emplace(metrics_path(options_), metrics_constants(), position_.history);
  events_.emplace(folder_->path(), position_.step);
  say(fmt::format("{}: {} training and {} test images; {} linear layers, {}, {}, {} threads, seed {}",
                  apps::name_of(train_.name), images_, test_.count(), name_of(options_.linear),
                  name_of(options_.precision), learner_.device().str(), at::get_num_threads(),
                  options_.seed));
  if (checkpoint) {
    say(fmt::format("going on after epoch {}, batch {} of {}", position_.epoch, position_.batch, batches_));
  }
}

void Run::restore(const Checkpoint& checkpoint) {
  if (checkpoint.state.at("fingerprint") != fingerprint_) {
    throw Error(fmt::format("--data: these are not the images that the run in {} was started with",
                            folder_->path().string()));
  }
  if (const int threads = checkpoint.state.at("threads"); threads != at::get_num_threads()) {
    warn(fmt::format("{} threads now, {} before: the result will not be the same to the last bit",
                     at::get_num_threads(), threads));
  }
  learner_.restore(checkpoint.tensors, checkpoint.state.at("scaler"));
  position_ = position_from_json(checkpoint.state.at("position"));
}

nlohmann::ordered_json Run::metrics_constants() const {
  return {{"dataset", apps::name_of(options_.dataset)}, {"train_images", images_},
          {"linear", name_of(options_.linear)},         {"precision", name_of(options_.precision)},
          {"device", learner_.device().str()},          {"threads", at::get_num_threads()},
          {"batch_size", options_.batch_size},          {"seed", options_.seed}};
}

void Run::save() {
  // Parameters that give no finite loss may be lost already: keep the checkpoints from before. A run that
  // goes on from there takes the same steps again.
  if (position_.skipped > 0) return;
  const Checkpoint checkpoint{.state = {{"options", to_json(options_)},
                                        {"fingerprint", fingerprint_},
                                        {"threads", at::get_num_threads()},
                                        {"scaler", learner_.scaler_state()},
                                        {"position", to_json(position_)}},
                              .tensors = learner_.tensors()};
  store_.save(position_.step, checkpoint);
  last_save_ = Clock::now();
}

void Run::note_step(const Learner::StepResult& result, std::int64_t images, double learning_rate) {
  if (std::isfinite(result.loss)) {
    position_.loss_sum += result.loss * static_cast<double>(images);
    position_.loss_images += images;
    position_.correct += result.correct;
  }
  position_.batch += 1;
  position_.step += 1;
  position_.skipped = result.taken ? 0 : position_.skipped + 1;
  check_skipped(position_.skipped);
  note_loss(result.loss, learning_rate);
}

void Run::check_skipped(std::int64_t in_a_row) const {
  if (in_a_row < kMostSkippedInARow) return;
  const std::string since =
      in_a_row == position_.skipped
          ? " from " + describe_step(position_.step - position_.skipped + 1, batches_) + " on"
          : fmt::format(" in epoch {}", position_.epoch + 1);
  throw Error(fmt::format("the loss or its gradient was not finite for {} steps in a row{}; {}", in_a_row,
                          since, what_may_help()));
}

void Run::note_loss(double loss, double learning_rate) {
  if (steps_to_event(position_.step - 1, steps()) != 1) return;
  const EventFile::Scalar scalars[] = {{"step/loss", loss}, {"step/learning_rate", learning_rate}};
  // The constructor has made it. NOLINTNEXTLINE(bugprone-unchecked-optional-access)
  events_->add(position_.step, scalars);
}

void Run::show(apps::Progress& progress) const {
  progress.update(std::min(images_, position_.batch * options_.batch_size),
                  fmt::format("loss {:.3f}  accuracy {:.1f} %", position_.mean_loss(), position_.accuracy()));
}

bool Run::train_epoch_on_gpu() {
#if TRIT_TORCH_CUDA
  apps::Progress progress(fmt::format("epoch {}/{}", position_.epoch + 1, options_.epochs), images_,
                          "images");
  const auto start = Clock::now();
  const double seconds_before = position_.seconds;
  gpu_steps_->begin_epoch(position_.epoch, position_.batch, position_.step, position_.skipped);
  while (position_.batch < batches_) {
    // The host looks at the sums as often as it writes an event.
    const std::int64_t count = std::min(steps_to_event(position_.step, steps()), batches_ - position_.batch);
    const gpu::Progress done = gpu_steps_->run(count);
    position_.loss_sum += done.loss_sum;
    position_.loss_images += done.loss_images;
    position_.correct += done.correct;
    position_.batch += count;
    position_.step += count;
    position_.skipped = done.skipped;
    check_skipped(done.longest_skipped);
    note_loss(done.last_loss, learning_rate(options_, batches_, position_.step - 1));
    position_.seconds = seconds_before + seconds_since(start);
    show(progress);
    const bool stop = apps::interrupted();
    if (stop || seconds_since(last_save_) >= options_.checkpoint_seconds) save();
    if (stop) return false;
  }
#endif
  return true;
}

Evaluation Run::evaluation(const std::function<bool()>& stop) {
#if TRIT_TORCH_CUDA
  if (gpu_test_) return gpu::evaluate(learner_.network(), *gpu_test_);
#endif
  return evaluate(learner_.network(), test_, learner_.device(), stop);
}

bool Run::train_epoch() {
  if (learner_.device().is_cuda()) return train_epoch_on_gpu();
  EpochBatches batches(train_, {.images = images_,
                                .batch_size = options_.batch_size,
                                .seed = options_.seed,
                                .epoch = position_.epoch,
                                .first_batch = position_.batch});
  apps::Progress progress(fmt::format("epoch {}/{}", position_.epoch + 1, options_.epochs), images_,
                          "images");
  const auto start = Clock::now();
  const double seconds_before = position_.seconds;
  while (const Batch* batch = batches.next()) {
    const double rate = learning_rate(options_, batches_, position_.step);
    note_step(learner_.step(*batch, rate), batch->images, rate);
    position_.seconds = seconds_before + seconds_since(start);
    show(progress);
    const bool stop = apps::interrupted();
    if (stop || seconds_since(last_save_) >= options_.checkpoint_seconds) save();
    if (stop) return false;
  }
  return true;
}

bool Run::finish_epoch() {
  const bool scaled = options_.precision == Precision::fp16;
  if (const std::string lost = lost_epoch(position_, batches_, scaled); !lost.empty())
    throw Error(lost + "; " + what_may_help());
  Evaluation evaluation = this->evaluation(apps::interrupted);
  if (apps::interrupted()) {
    save();
    return false;
  }
  const EpochMetrics metrics{.epoch = position_.epoch + 1,
                             .train_loss = position_.mean_loss(),
                             .train_accuracy = position_.accuracy(),
                             .test_loss = evaluation.loss,
                             .test_accuracy = evaluation.accuracy,
                             .seconds = position_.seconds,
                             .images_per_second = static_cast<double>(images_) / position_.seconds,
                             .learning_rate = learning_rate(options_, batches_, position_.step - 1)};
  if (!std::isfinite(metrics.test_loss)) {
    warn(fmt::format("the test loss of epoch {} is {}: the parameters may be lost", metrics.epoch,
                     metrics.test_loss));
  }
  last_evaluation_ = std::move(evaluation);
  position_.history.push_back(metrics);
  position_ = {.epoch = position_.epoch + 1,
               .batch = 0,
               .step = position_.step,
               .skipped = position_.skipped,
               .history = std::move(position_.history)};
  save();  // before the line: a resumed run writes the lines that its checkpoint knows
  // The constructor has made it. NOLINTNEXTLINE(bugprone-unchecked-optional-access)
  metrics_->append(metrics);
  const EventFile::Scalar scalars[] = {{"epoch/train_loss", metrics.train_loss},
                                       {"epoch/train_accuracy", metrics.train_accuracy},
                                       {"epoch/test_loss", metrics.test_loss},
                                       {"epoch/test_accuracy", metrics.test_accuracy},
                                       {"epoch/images_per_second", metrics.images_per_second}};
  // The constructor has made it. NOLINTNEXTLINE(bugprone-unchecked-optional-access)
  events_->add(position_.step, scalars);
  say(fmt::format(
      "epoch {:2}/{}  {}  loss {:.4f}  train {:5.2f} %  test {:5.2f} %  {:6.2f} s  {:5.0f} images/s",
      metrics.epoch, options_.epochs, apps::name_of(train_.name), metrics.train_loss, metrics.train_accuracy,
      metrics.test_accuracy, metrics.seconds, metrics.images_per_second));
  return true;
}

void Run::finish() {
  if (!last_evaluation_) last_evaluation_ = evaluation([] { return false; });
  if (position_.skipped >= position_.step) {
    throw Error("no step of the run had a finite gradient: no model is written; " + what_may_help());
  }
  if (!std::isfinite(last_evaluation_->loss)) {
    throw Error(fmt::format("the test loss is {} after the last epoch: no model is written; {}",
                            last_evaluation_->loss, what_may_help()));
  }
  const std::filesystem::path path = folder_->model();
  export_model(path, learner_.network(), test_);
  if (!options_.predictions.empty()) {
    std::string text;
    for (const std::uint8_t prediction : last_evaluation_->predictions)
      text += fmt::format("{}\n", prediction);
    const std::span<const std::byte> parts[] = {std::as_bytes(std::span(text))};
    io::write_file_atomically(options_.predictions, parts);
  }
  const std::string name(apps::name_of(train_.name));
  say(fmt::format("{}: test accuracy {:.2f} % of {} images", name, last_evaluation_->accuracy,
                  test_.count()));
  if (const std::string note = note_on_accuracy(train_.name, last_evaluation_->accuracy, steps());
      !note.empty())
    say(note);
  say(fmt::format("{}: exported {}, {} bytes", name, path.string(), std::filesystem::file_size(path)));
  for (const std::string& line : closing_hints(options_)) say(line);
}

std::string Run::what_may_help() const {
  std::string advice = "start another run with a lower --lr or with --clip";
  if (store_.files().empty()) return advice;
  return fmt::format("{}. Checkpoints from before are in {}", advice, folder_->checkpoints().string());
}

int Run::run() {
  while (position_.epoch < options_.epochs) {
    if (!train_epoch() || !finish_epoch()) {
      say(store_.files().empty() ? "interrupted before the first checkpoint"
                                 : "interrupted; go on with: " + resume_command(options_));
      return 130;
    }
  }
  finish();
  return 0;
}

}  // namespace

int train(TrainOptions options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  std::unique_ptr<RunFolder> folder;
  std::optional<Checkpoint> checkpoint;
  if (options.resume) {
    folder = std::make_unique<RunFolder>(options.out, /*resume=*/true);
    checkpoint = CheckpointStore(folder->checkpoints()).load_newest(warn);
    if (!checkpoint) {
      throw Error(fmt::format("no run in {} to resume: it has no checkpoint", options.out.string()));
    }
    options = read_state(folder->path(),
                         [&] { return resume_options(std::move(options), checkpoint->state.at("options")); });
  }
  check_output_paths(options);
  return Run(std::move(options), std::move(folder), std::move(checkpoint)).run();
}

}  // namespace trit::train
