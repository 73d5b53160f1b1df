// SPDX-License-Identifier: MIT
#include "runtime/onednn_program.h"

#include <omp.h>

#include <atomic>
#include <string>

#include "trit/error.h"
#include "trit/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trit::runtime {
namespace {

bool has_default_floating_point() {
#if defined(__x86_64__)
  constexpr unsigned kFlags = 0x3f;  // that an operation has raised; they control nothing
  return (_mm_getcsr() & ~kFlags) == 0x1f80U;
#else
  return false;  // set it
#endif
}

/// For one scope: the default floating-point environment on the OpenMP threads that oneDNN is about to use.
/// oneDNN does not set it, and they have the one of the thread that started them: a caller that flushes
/// denormals passes that on.
class OpenMpFloatingPoint {
 public:
  OpenMpFloatingPoint() : threads_(omp_get_max_threads()) {
    if (threads_ == 1) {
      return;  // the caller's own, which is set
    }
    std::atomic<bool> set = true;
#pragma omp parallel num_threads(threads_)
    if (!has_default_floating_point()) {
      set.store(false, std::memory_order_relaxed);
    }
    if (!set) {
      environments_.resize(static_cast<std::size_t>(threads_));
#pragma omp parallel num_threads(threads_)
      environments_[static_cast<std::size_t>(omp_get_thread_num())] =
          std::make_unique<DefaultFloatingPoint>();
    }
  }
  ~OpenMpFloatingPoint() {
    if (!environments_.empty()) {
#pragma omp parallel num_threads(threads_)
      environments_[static_cast<std::size_t>(omp_get_thread_num())].reset();
    }
  }
  OpenMpFloatingPoint(const OpenMpFloatingPoint&) = delete;
  OpenMpFloatingPoint& operator=(const OpenMpFloatingPoint&) = delete;

 private:
  int threads_;
  std::vector<std::unique_ptr<DefaultFloatingPoint>> environments_;  // each thread's own
};

}  // namespace

void rethrow_onednn_error(const dnnl::error& error) {
  throw Error("oneDNN: " + std::string(error.what()) + " (status " +
              std::to_string(static_cast<int>(error.status)) + ")");
}

std::size_t OnednnProgram::add_storage(Storage::Kind kind, std::size_t index, std::size_t bytes) {
  storages_.push_back(
      {.kind = kind, .index = index, .bytes = bytes, .first = calls_.size(), .last = calls_.size()});
  return storages_.size() - 1;
}

std::size_t OnednnProgram::add_slot(const dnnl::memory::desc& layout, std::size_t storage) {
  slots_.push_back({layout, storage});
  return slots_.size() - 1;
}

void OnednnProgram::add_primitive(dnnl::primitive primitive,
                                  std::vector<std::pair<int, std::size_t>> arguments,
                                  std::vector<std::pair<int, dnnl::memory>> constants,
                                  const dnnl::memory::desc& scratchpad) {
  if (const std::size_t bytes = scratchpad.get_size(); bytes != 0) {
    arguments.emplace_back(DNNL_ARG_SCRATCHPAD,
                           add_slot(scratchpad, add_storage(Storage::Kind::temporary, 0, bytes)));
  }
  add_call({std::move(primitive), {}, std::move(arguments), std::move(constants)});
}

void OnednnProgram::add_own_step(OwnStep step, std::size_t source, std::size_t destination) {
  add_call({{}, std::move(step), {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, destination}}, {}});
}

void OnednnProgram::add_call(Call call) {
  for (const auto& [argument, slot] : call.arguments) {
    storages_[slots_[slot].storage].last = calls_.size();
  }
  calls_.push_back(std::move(call));
}

void OnednnProgram::finish() {
  std::vector<Lifetime> lifetimes;
  for (const Storage& storage : storages_) {
    const bool temporary = storage.kind == Storage::Kind::temporary;
    lifetimes.push_back({temporary ? storage.bytes : 0, storage.first, storage.last});
  }
  const MemoryPlan plan = plan_memory(lifetimes);
  for (std::size_t i = 0; i < storages_.size(); ++i) {
    storages_[i].offset = plan.offsets[i];
  }
  arena_bytes_ = plan.bytes;
}

std::unique_ptr<OnednnProgram::Binding> OnednnProgram::take_binding() const {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      auto binding = std::move(free_.back());
      free_.pop_back();
      return binding;
    }
  }
  auto binding = std::make_unique<Binding>();
  binding->stream = dnnl::stream(engine_);
  for (const Slot& slot : slots_) {
    binding->memories.push_back(dnnl::memory(slot.layout, engine_, DNNL_MEMORY_NONE));
  }
  for (const Call& call : calls_) {
    auto& arguments = binding->arguments.emplace_back();
    for (const auto& [argument, slot] : call.arguments) {
      arguments.push_back({argument, binding->memories[slot].get()});
    }
    for (const auto& [argument, memory] : call.constants) {
      arguments.push_back({argument, memory.get()});
    }
  }
  return binding;
}

void OnednnProgram::point(Binding& binding, std::span<const float* const> inputs,
                          std::span<float* const> outputs, std::byte* arena) const {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Storage& storage = storages_[slots_[i].storage];
    if (storage.kind == Storage::Kind::input) {
      // Memory objects know no const; the primitives only read it.
      binding.memories[i].set_data_handle(const_cast<float*>(inputs[storage.index]));
    } else if (storage.kind == Storage::Kind::output) {
      binding.memories[i].set_data_handle(outputs[storage.index]);
    } else if (binding.arena != arena) {
      binding.memories[i].set_data_handle(arena + storage.offset);
    }
  }
  binding.arena = arena;
}

void OnednnProgram::run(std::span<const float* const> inputs, std::span<float* const> outputs,
                        std::byte* arena) const {
  with_onednn_errors([&] {
    auto binding = take_binding();
    point(*binding, inputs, outputs, arena);
    const OpenMpFloatingPoint environment;
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      const auto& arguments = binding->arguments[i];
      if (const Call& call = calls_[i]; call.own_step) {
        call.own_step(binding->memories[call.arguments[0].second].get_data_handle(),
                      binding->memories[call.arguments[1].second].get_data_handle());
        continue;
      }
      dnnl::error::wrap_c_api(dnnl_primitive_execute(calls_[i].primitive.get(), binding->stream.get(),
                                                     static_cast<int>(arguments.size()), arguments.data()),
                              "a primitive could not be executed");
    }
    binding->stream.wait();
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(binding));
  });
}

}  // namespace trit::runtime
