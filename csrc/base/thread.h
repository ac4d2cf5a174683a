// Threads of ours inside somebody else's program.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>

namespace qmeter {

// Start a thread called `name` (at most 15 characters) with every signal blocked, so that the program's own
// signal handlers never run on it and SIGXFSZ becomes an error of write().
std::thread start_thread(const char* name, std::function<void()> body);

// Run `body` on a thread of its own and wait at most `timeout_ns` for it. False if it is still at it then: it
// goes on by itself, so it must own what it uses.
bool finishes_within(int64_t timeout_ns, std::function<void()> body);

}  // namespace qmeter
