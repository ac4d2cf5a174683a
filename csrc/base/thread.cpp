#include "base/thread.h"

#include <pthread.h>

#include <chrono>
#include <csignal>
#include <future>
#include <memory>
#include <utility>

namespace qmeter {

std::thread start_thread(const char* name, std::function<void()> body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // a new thread inherits the mask of its maker
  try {
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread.native_handle(), name);
    return thread;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

bool finishes_within(int64_t timeout_ns, std::function<void()> body) {
  std::packaged_task<void()> task(std::move(body));
  std::future<void> done = task.get_future();
  const auto shared = std::make_shared<std::packaged_task<void()>>(std::move(task));
  start_thread("qmeter-bounded", [shared] { (*shared)(); }).detach();
  return done.wait_for(std::chrono::nanoseconds(timeout_ns)) == std::future_status::ready;
}

}  // namespace qmeter
