// SPDX-License-Identifier: MIT
#include <cerrno>
#include <cstdio>
#include <exception>

#include "bench/lib/program.h"

int main(int argc, char** argv) {
  try {
    return trit::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, error.what());
    return 1;
  }
}
