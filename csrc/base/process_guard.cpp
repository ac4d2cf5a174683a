#include "base/process_guard.h"

#include <pthread.h>

#include <atomic>

namespace qmeter {
namespace {

std::atomic<uint64_t> generation{0};

void count_fork_in_child() { generation.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

ProcessGuard::ProcessGuard() {
  static const int registered = pthread_atfork(nullptr, nullptr, count_fork_in_child);
  static_cast<void>(registered);
  generation_ = generation.load(std::memory_order_relaxed);
}

bool ProcessGuard::is_owner() const noexcept {
  return generation_ == generation.load(std::memory_order_relaxed);
}

}  // namespace qmeter
