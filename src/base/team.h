// SPDX-License-Identifier: MIT
//
// OpenMP after fork(). libgomp keeps the threads of a team for the next parallel region of the thread that
// created it. fork() copies the calling thread alone, so that thread's next region in the child would wait
// forever for threads that do not exist; its work runs on one thread instead. Threads that the child starts
// itself, and a process that forks before it uses a team (a daemon), have teams as usual.
#pragma once

namespace trit {

/// Before a parallel region of more than one thread, here or in a library.
void use_team();
/// Whether the calling thread had a team in the parent process and must not begin a region.
bool team_is_lost();

}  // namespace trit
