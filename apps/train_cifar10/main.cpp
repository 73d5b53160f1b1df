// SPDX-License-Identifier: MIT
//
// train_cifar10: trains SimpleBitNetCNN (network.h) and exports it packed. docs/training.md is its manual.
#include <cstdlib>
#include <exception>
#include <string>

#include "common/progress.h"
#include "common/standard_streams.h"
#include "train_cifar10/caching_allocator.h"
#include "train_cifar10/options.h"
#include "train_cifar10/processes.h"
#include "train_cifar10/trainer.h"

int main(int argc, char** argv) {
  trit::apps::prepare_standard_streams();
  const trit::train::TrainOptions options = trit::train::parse_command_line(argc, argv);
  trit::apps::install_interrupt_handler();
  trit::train::install_caching_allocator();
  try {
    return trit::train::train(options);
  } catch (const trit::train::FirstProcessStopped&) {
    std::_Exit(1);
  } catch (const std::exception& error) {
    const char* const rank = std::getenv("RANK");
    trit::apps::say((rank == nullptr ? "train_cifar10: error: "
                                     : std::string("train_cifar10: rank ") + rank + ": error: ") +
                    error.what());
    // Not through destructors: those of a process group wait for processes that may have ended.
    if (rank != nullptr) std::_Exit(1);
    return 1;
  }
}
