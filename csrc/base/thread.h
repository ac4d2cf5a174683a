// Threads of ours inside somebody else's program.
#pragma once

#include <functional>
#include <thread>

namespace qmeter {

// Start a thread called `name` (at most 15 characters) with every signal blocked, so that the program's own signal
// handlers never run on it and SIGXFSZ becomes an error of write().
std::thread start_thread(const char* name, std::function<void()> body);

}  // namespace qmeter
