// SPDX-License-Identifier: MIT
//
// What the processes that a case starts (launch.h) do, by name.
#pragma once

#include <filesystem>
#include <string>

namespace trit::test {

/// Runs the function `name` in this process, one of a group; it leaves its results in `folder`, that of the
/// case. Throws where there is no such function, and what the function throws.
void run_worker(const std::string& name, const std::filesystem::path& folder);

}  // namespace trit::test
