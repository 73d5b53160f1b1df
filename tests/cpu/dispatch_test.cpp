// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <fstream>

#include "cpu/support.h"
#include "environment_variable.h"
#include "trit/error.h"

namespace trit::test {
namespace {

class BackendVariable : public EnvironmentVariable {
 public:
  explicit BackendVariable(const char* value) : EnvironmentVariable("TRIT_BACKEND", value) {}
};

std::string error_for(Backend backend) {
  try {
    static_cast<void>(cpu_kernels_for(backend));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Dispatch, Names) {
  for (const char* name : {"auto", "scalar", "avx2", "avx_vnni", "avx512_vnni", "amx", "cuda"}) {
    EXPECT_EQ(name_of(backend_from_name(name)), name);
  }
  try {
    static_cast<void>(backend_from_name("sse"));
    FAIL();
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const char* part : {"'sse'", "auto", "scalar", "avx2", "avx_vnni", "avx512_vnni", "amx", "cuda"}) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }
}

TEST(Dispatch, TableHasTheScalarRowFirstAndEachBackendOnce) {
  const auto rows = cpu_kernels();
  ASSERT_FALSE(rows.empty());
  EXPECT_EQ(rows[0]->backend, Backend::scalar);
  EXPECT_TRUE(rows[0]->available());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = i + 1; j < rows.size(); ++j) {
      EXPECT_NE(rows[i]->backend, rows[j]->backend);
    }
  }
}

// What the compiler's own detection says.
TEST(Dispatch, AvailableAgreesWithTheCompilersDetection) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") != 0 &&
                      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                      __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
  for (const CpuKernels* row : cpu_kernels()) {
    if (row->backend == Backend::avx2) {
      EXPECT_EQ(row->available(), avx2);
    }
    if (row->backend == Backend::avx512_vnni) {
      EXPECT_EQ(row->available(), avx512);
    }
  }
#endif
}

// What the operating system says. The compilers that are supported do not know these by name.
TEST(Dispatch, AvailableAgreesWithTheOperatingSystem) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line) && !line.starts_with("flags")) {
  }
  if (!line.starts_with("flags")) {
    std::printf("no flags in /proc/cpuinfo: nothing to compare with\n");
    return;
  }
  const auto has = [&](const std::string& flag) {
    return (line + " ").find(" " + flag + " ") != std::string::npos;
  };
  for (const CpuKernels* row : cpu_kernels()) {
    if (row->backend == Backend::avx_vnni) {
      EXPECT_EQ(row->available(), has("avx2") && has("avx_vnni"));
    }
    if (row->backend == Backend::amx) {
      EXPECT_EQ(row->available(), has("avx512_vnni") && has("amx_tile") && has("amx_int8") && has("gfni"));
    }
  }
}

TEST(Dispatch, EachAvailableRowByName) {
  const BackendVariable none(nullptr);
  const std::vector<std::string> names = available_backends();
  const std::vector<const CpuKernels*> rows = available_rows();
  ASSERT_EQ(names.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(names[i], name_of(rows[i]->backend));
    EXPECT_EQ(&cpu_kernels_for(backend_from_name(names[i])), rows[i]);
    const BackendVariable forced(names[i].c_str());
    EXPECT_EQ(&cpu_kernels_for(Backend::automatic), rows[i]);
  }
  EXPECT_EQ(&cpu_kernels_for(Backend::automatic), rows.back());
  const BackendVariable empty("");
  EXPECT_EQ(&cpu_kernels_for(Backend::automatic), rows.back());
  const BackendVariable automatic("auto");
  EXPECT_EQ(&cpu_kernels_for(Backend::automatic), rows.back());
}

TEST(Dispatch, TheCallersChoiceGoesBeforeTheVariable) {
  const BackendVariable forced("cuda");
  EXPECT_EQ(cpu_kernels_for(Backend::scalar).backend, Backend::scalar);
}

TEST(Dispatch, AMissingBackendIsAnErrorThatListsTheRest) {
  const std::vector<std::string> names = available_backends();
  for (const char* name : {"avx2", "avx_vnni", "avx512_vnni", "amx", "cuda"}) {
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      continue;
    }
    const BackendVariable forced(name);
    for (const std::string& message : {error_for(backend_from_name(name)), error_for(Backend::automatic)}) {
      EXPECT_NE(message.find(std::string("'") + name + "'"), std::string::npos) << message;
      for (const std::string& available : names) {
        EXPECT_NE(message.find(available), std::string::npos) << message;
      }
    }
    EXPECT_NE(error_for(Backend::automatic).find("TRIT_BACKEND"), std::string::npos);
  }
  const BackendVariable nonsense("fastest");
  EXPECT_NE(error_for(Backend::automatic).find("TRIT_BACKEND: unknown backend 'fastest'"), std::string::npos);
  // There may be a GPU all the same.
  const BackendVariable gpu("cuda");
  EXPECT_NE(error_for(Backend::automatic).find("TRIT_BACKEND: backend 'cuda' runs packed models"),
            std::string::npos)
      << error_for(Backend::automatic);
}

TEST(Dispatch, EachRowHasLayoutsAndTheirNamesReadBack) {
  for (const CpuKernels* row : available_rows()) {
    ASSERT_FALSE(row->layouts.empty());
    EXPECT_TRUE(row->layouts.front().available());
    for (const PanelLayout& layout : row->layouts) {
      EXPECT_NE(layout.format, PanelFormat::automatic);
      EXPECT_EQ(panel_format_from_name(name_of(layout.format)), layout.format);
    }
  }
  EXPECT_EQ(panel_format_from_name("auto"), PanelFormat::automatic);
  try {
    panel_format_from_name("three_bit");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "unknown panel format 'three_bit', wanted one of: auto, two_bit, base3");
  }
}

}  // namespace
}  // namespace trit::test
