// SPDX-License-Identifier: MIT
//
// A list of oneDNN primitives over planned memory: what a segment becomes.
//
// Memory objects are cheap to make but not free, and execution wants its arguments as an array: both are made
// once per concurrent caller (a "binding") and pointed at the caller's memory.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <span>
#include <utility>
#include <vector>

#include "runtime/dense.h"
#include "runtime/memory_plan.h"

namespace trit::runtime {

/// Bytes that a run needs. Temporary ones get a place in the arena by their lifetime.
struct Storage {
  enum class Kind { temporary, input, output };
  Kind kind = Kind::temporary;
  std::size_t index = 0;  // of the input or output
  std::size_t bytes = 0;
  std::size_t first = 0;  // first and last primitive that touches it
  std::size_t last = 0;
  std::size_t offset = 0;  // in the arena
};

/// A view of a storage: how one primitive sees it.
struct Slot {
  dnnl::memory::desc layout;
  std::size_t storage;
};

class OnednnProgram final : public CompiledSegment {
 public:
  explicit OnednnProgram(dnnl::engine engine) : engine_(std::move(engine)) {}

  // Building, before the first run.
  std::size_t add_storage(Storage::Kind kind, std::size_t index, std::size_t bytes);
  std::size_t add_slot(const dnnl::memory::desc& layout, std::size_t storage);
  const Slot& slot(std::size_t index) const { return slots_[index]; }
  Storage& storage(std::size_t index) { return storages_[index]; }
  /// Appends a primitive; `arguments` maps DNNL_ARG_* to slots, `constants` to memory that never changes.
  /// A scratchpad is added where `scratchpad` is not empty.
  void add_primitive(dnnl::primitive primitive, std::vector<std::pair<int, std::size_t>> arguments,
                     std::vector<std::pair<int, dnnl::memory>> constants,
                     const dnnl::memory::desc& scratchpad);
  /// Appends a step of this library's own: `step` reads the source's bytes and writes the destination's.
  using OwnStep = std::function<void(const void* source, void* destination)>;
  void add_own_step(OwnStep step, std::size_t source, std::size_t destination);
  /// Plans the memory; nothing may be added after it.
  void finish();

  std::size_t arena_bytes() const override { return arena_bytes_; }
  void run(std::span<const float* const> inputs, std::span<float* const> outputs,
           std::byte* arena) const override;

 private:
  struct Call {
    dnnl::primitive primitive;
    OwnStep own_step;  // instead of the primitive, from arguments[0] to arguments[1]
    std::vector<std::pair<int, std::size_t>> arguments;
    std::vector<std::pair<int, dnnl::memory>> constants;
  };
  struct Binding {
    dnnl::stream stream;
    std::vector<dnnl::memory> memories;                   // of each slot
    std::vector<std::vector<dnnl_exec_arg_t>> arguments;  // of each call
    std::byte* arena = nullptr;                           // that the temporary slots point at
  };

  void add_call(Call call);
  std::unique_ptr<Binding> take_binding() const;
  void point(Binding& binding, std::span<const float* const> inputs, std::span<float* const> outputs,
             std::byte* arena) const;

  dnnl::engine engine_;
  std::vector<Storage> storages_;
  std::vector<Slot> slots_;
  std::vector<Call> calls_;
  std::size_t arena_bytes_ = 0;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Binding>> free_;
};

[[noreturn]] void rethrow_onednn_error(const dnnl::error& error);

/// Runs `function`, and turns oneDNN's exceptions into trit::Error.
template <typename Function>
auto with_onednn_errors(const Function& function) {
  try {
    return function();
  } catch (const dnnl::error& error) {
    rethrow_onednn_error(error);
  }
}

}  // namespace trit::runtime
