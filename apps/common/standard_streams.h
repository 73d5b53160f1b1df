// SPDX-License-Identifier: MIT
//
// Standard input, output and error, whatever the parent process made of them. Results go to standard output,
// and a result that cannot be written is an error; messages for people go to standard error, and one that
// cannot be written is dropped: the work and its exit code do not depend on it.
#pragma once

#include <string_view>

namespace trit::apps {

/// First thing in main(). Occupies the descriptors 0 to 2 where they are closed, so that no file that is
/// opened later takes their numbers and gets messages written into it; what is written there fails still.
/// A closed pipe and a limit on file sizes show as errors of write() instead of ending the process.
void prepare_standard_streams();

/// Writes to standard output. Throws trit::Error if it does not take everything (a full disk, a closed pipe).
void print(std::string_view text);
/// Throws trit::Error if standard output was closed when the process began: before the work whose result goes
/// there.
void check_standard_output();
/// A line for people, to standard error. Never fails.
void say(std::string_view line) noexcept;
/// The same without a newline.
void write_error(std::string_view text) noexcept;

}  // namespace trit::apps
