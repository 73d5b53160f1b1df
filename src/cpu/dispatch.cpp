// SPDX-License-Identifier: MIT
#include "cpu/dispatch.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "trit/error.h"

namespace trit {
namespace {

struct BackendName {
  Backend backend;
  std::string_view name;
};
constexpr std::array kNames = {
    BackendName{Backend::automatic, "auto"},
    BackendName{Backend::scalar, "scalar"},
    BackendName{Backend::avx2, "avx2"},
    BackendName{Backend::avx_vnni, "avx_vnni"},
    BackendName{Backend::avx512_vnni, "avx512_vnni"},
    BackendName{Backend::amx, "amx"},
    BackendName{Backend::cuda, "cuda"},
};

struct FormatName {
  PanelFormat format;
  std::string_view name;
};
constexpr std::array kFormatNames = {
    FormatName{PanelFormat::automatic, "auto"},
    FormatName{PanelFormat::two_bit, "two_bit"},
    FormatName{PanelFormat::base3, "base3"},
};

// Slowest first: `automatic` takes the last one that this machine can run.
constexpr std::array kRows = {
    &k_scalar,
#if defined(TRIT_KERNELS_AVX2)
    &k_avx2,
#endif
#if defined(TRIT_KERNELS_AVX_VNNI)
    &k_avx_vnni,
#endif
#if defined(TRIT_KERNELS_AVX512_VNNI)
    &k_avx512_vnni,
#endif
#if defined(TRIT_KERNELS_AMX)
    &k_amx,
#endif
};

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

// The backend that TRIT_BACKEND names; automatic if it is unset or empty.
Backend forced_backend() {
  const char* name = std::getenv("TRIT_BACKEND");
  if (name == nullptr || *name == '\0') {
    return Backend::automatic;
  }
  try {
    return backend_from_name(name);
  } catch (const Error& error) {
    throw Error(std::string("TRIT_BACKEND: ") + error.what());
  }
}

}  // namespace

std::string_view name_of(Backend backend) {
  const auto found = std::find_if(kNames.begin(), kNames.end(),
                                  [&](const BackendName& entry) { return entry.backend == backend; });
  return found == kNames.end() ? "unknown" : found->name;
}

Backend backend_from_name(std::string_view name) {
  const auto found = std::find_if(kNames.begin(), kNames.end(),
                                  [&](const BackendName& entry) { return entry.name == name; });
  if (found == kNames.end()) {
    std::vector<std::string> names;
    for (const BackendName& entry : kNames) {
      names.emplace_back(entry.name);
    }
    throw Error("unknown backend '" + std::string(name) + "', wanted one of: " + join(names));
  }
  return found->backend;
}

std::string_view name_of(PanelFormat format) {
  const auto found = std::find_if(kFormatNames.begin(), kFormatNames.end(),
                                  [&](const FormatName& entry) { return entry.format == format; });
  return found == kFormatNames.end() ? "unknown" : found->name;
}

PanelFormat panel_format_from_name(std::string_view name) {
  const auto found = std::find_if(kFormatNames.begin(), kFormatNames.end(),
                                  [&](const FormatName& entry) { return entry.name == name; });
  if (found == kFormatNames.end()) {
    std::vector<std::string> names;
    for (const FormatName& entry : kFormatNames) {
      names.emplace_back(entry.name);
    }
    throw Error("unknown panel format '" + std::string(name) + "', wanted one of: " + join(names));
  }
  return found->format;
}

std::span<const CpuKernels* const> cpu_kernels() { return kRows; }

std::vector<std::string> available_backends() {
  std::vector<std::string> names;
  for (const CpuKernels* row : kRows) {
    if (row->available()) {
      names.emplace_back(name_of(row->backend));
    }
  }
  return names;
}

Backend requested_backend(Backend backend) {
  return backend == Backend::automatic ? forced_backend() : backend;
}

const CpuKernels& cpu_kernels_for(Backend backend) {
  const bool asked_by_caller = backend != Backend::automatic;
  if (!asked_by_caller) {
    backend = forced_backend();
  }
  for (auto row = kRows.rbegin(); row != kRows.rend(); ++row) {
    if ((backend == Backend::automatic || (*row)->backend == backend) && (*row)->available()) {
      return **row;
    }
  }
  const std::string asked =
      std::string(asked_by_caller ? "backend '" : "TRIT_BACKEND: backend '") + std::string(name_of(backend));
  if (backend == Backend::cuda) {
    throw Error(asked +
                "' runs packed models (trit eval, run, info and bench); this computes on the CPU, where this "
                "machine has: " +
                join(available_backends()));
  }
  throw Error(asked + "' is not available here; this machine has: " + join(available_backends()));
}

}  // namespace trit
