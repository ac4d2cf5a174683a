// CUPTI switched on for this process: subscribed, callbacks registered, activity kinds enabled. Destroyed =
// all undone.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collect/activity_buffers.h"
#include "driver/cupti.h"

namespace qmeter {

// Where CUPTI's callbacks deliver. Outlives the session if a callback or CUPTI itself is late.
struct ActivitySink {
  ActivitySink(std::shared_ptr<const Cupti> library, size_t buffer_bytes, size_t budget_bytes)
      : cupti(std::move(library)), buffers(buffer_bytes, budget_bytes) {}

  const std::shared_ptr<const Cupti> cupti;
  ActivityBuffers buffers;
  std::atomic<uint64_t> callback_ns{0};
  std::atomic<uint64_t> dropped_records{0};  // by CUPTI, as it says itself
};

struct CuptiSettings {
  uint32_t flush_period_ms = 1000;  // how often CUPTI gives back full buffers by itself; 0: when it likes
  bool is_paused = false;           // begin without recording
};

class CuptiSession {
 public:
  // Throws Error: kTaken (another subscriber, or another session of ours), kForbidden, kNotFound (no CUDA
  // driver), kUnsupported. Whatever was done until then is undone.
  CuptiSession(std::shared_ptr<ActivitySink> sink, const CuptiSettings& settings);
  ~CuptiSession() { stop(); }
  CuptiSession(const CuptiSession&) = delete;
  CuptiSession& operator=(const CuptiSession&) = delete;

  // Names of the kinds that are recorded.
  static std::vector<std::string> kinds();

  // The next three throw Error if CUPTI refuses or does not return within `timeout_ns`.

  // Ask CUPTI for all buffers whose records are complete.
  void flush(int64_t timeout_ns);

  // Disable the kinds, stay subscribed, and flush.
  void pause(int64_t timeout_ns);

  // Enable the kinds again.
  void resume(int64_t timeout_ns);

  // Disable, flush, unsubscribe. Idempotent. A CUPTI that does not return within ten seconds is left alone:
  // false.
  bool stop() noexcept;

 private:
  struct State;
  void call(int64_t timeout_ns, void (*body)(State&));

  std::shared_ptr<State> state_;
};

}  // namespace qmeter
