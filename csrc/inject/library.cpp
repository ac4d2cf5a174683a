// What the CUDA driver calls in libqmeter_inject.so, once, from the first cuInit of a process.
#include <atomic>
#include <cstdlib>

#include "inject/injection.h"

namespace {

std::atomic<qmeter::Injection*> current{nullptr};  // never destroyed: CUPTI may call until the very end

void close_current() {
  if (current != nullptr) current.load()->close();
}

// Whatever goes wrong: the program has not asked for us, so it runs on without.
void start() noexcept {
  try {
    if (current != nullptr && current.load()->is_owner()) return;
    const auto options = qmeter::InjectionOptions::from_environment();
    if (options.spool_dir.empty()) return;
    current = new qmeter::Injection(options);
    // Handlers run last come, first served: ours before those of the libraries that cuInit found loaded.
    static const int registered = std::atexit(close_current);
    static_cast<void>(registered);
  } catch (...) {
  }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjection() {
  start();
  return 1;
}
