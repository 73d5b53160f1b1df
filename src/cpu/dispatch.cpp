// SPDX-License-Identifier: MIT
#include <array>
#include <string>

#include "base/environment.h"
#include "base/names.h"
#include "cpu/table.h"
#include "trit/error.h"

namespace trit {
namespace {

constexpr std::array<Named<Backend>, 7> kBackends{{
    {Backend::automatic, "auto"},
    {Backend::scalar, "scalar"},
    {Backend::avx2, "avx2"},
    {Backend::avx_vnni, "avx_vnni"},
    {Backend::avx512_vnni, "avx512_vnni"},
    {Backend::amx, "amx"},
    {Backend::cuda, "cuda"},
}};

constexpr std::array<Named<PanelFormat>, 3> kFormats{{
    {PanelFormat::automatic, "auto"},
    {PanelFormat::two_bit, "two_bit"},
    {PanelFormat::base3, "base3"},
}};

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

}  // namespace

std::string_view name_of(Backend backend) { return name_in<Backend>(kBackends, backend); }
Backend backend_from_name(std::string_view name) { return value_in<Backend>(kBackends, "backend", name); }

std::string_view name_of(PanelFormat format) { return name_in<PanelFormat>(kFormats, format); }
PanelFormat panel_format_from_name(std::string_view name) {
  return value_in<PanelFormat>(kFormats, "panel format", name);
}

std::span<const CpuKernels* const> cpu_kernels() { return kRows; }

Backend backend_of(const CpuKernels& kernels) { return kernels.backend; }

std::vector<PanelFormat> available_formats(const CpuKernels& kernels) {
  std::vector<PanelFormat> formats;
  for (const PanelLayout& layout : kernels.layouts) {
    if (layout.available()) {
      formats.push_back(layout.format);
    }
  }
  return formats;
}

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
  return backend == Backend::automatic
             ? parse_environment("TRIT_BACKEND", Backend::automatic, backend_from_name)
             : backend;
}

const CpuKernels& cpu_kernels_for(Backend backend) {
  const Backend wanted = requested_backend(backend);
  for (auto row = kRows.rbegin(); row != kRows.rend(); ++row) {
    if ((wanted == Backend::automatic || (*row)->backend == wanted) && (*row)->available()) {
      return **row;
    }
  }
  throw Error((backend == Backend::automatic ? "TRIT_BACKEND: backend '" : "backend '") +
              std::string(name_of(wanted)) + "'" +
              (wanted == Backend::cuda
                   ? " runs packed models (trit eval, run, info and bench); this computes on the CPU, where "
                     "this machine has: "
                   : " is not available here; this machine has: ") +
              joined(available_backends()));
}

}  // namespace trit
