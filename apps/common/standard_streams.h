// SPDX-License-Identifier: MIT
//
// Standard input, output and error, in whatever state the parent process left them. Results go to standard
// output; failing to write one is an error. Messages for people go to standard error; one that cannot be
// written is dropped, and neither the work nor the exit code depends on it.
#pragma once

#include <string_view>

namespace trit::apps {

/// Call first in main(). Occupies the descriptors 0 to 2 if they are closed: no file that is opened later can
/// get their numbers and have messages written into it. Writing to them still fails. A closed pipe and a limit
/// on file sizes become errors of write() instead of ending the process.
void prepare_standard_streams();

/// Writes to standard output. Throws trit::Error if it does not take everything (a full disk, a closed pipe).
void print(std::string_view text);
/// Throws trit::Error if standard output was closed when the process began. Call it before the work whose
/// result goes there.
void check_standard_output();
/// A line for people, to standard error. Never fails.
void say(std::string_view line) noexcept;
/// The same without a newline.
void write_error(std::string_view text) noexcept;

}  // namespace trit::apps
