#include "collect/cupti_session.h"

#include <exception>
#include <mutex>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/process_guard.h"
#include "base/shared_library.h"
#include "base/thread.h"
#include "collect/other_profilers.h"

namespace qmeter {
namespace {

struct Kind {
  cupti::ActivityKind number;
  const char* name;
};

constexpr Kind kKinds[] = {
    {cupti::kActivityConcurrentKernel, "CONCURRENT_KERNEL"},
    {cupti::kActivityMemcpy, "MEMCPY"},
    {cupti::kActivityMemcpy2, "MEMCPY2"},
    {cupti::kActivityMemset, "MEMSET"},
};

// Whom the callbacks serve. CUPTI keeps the callbacks until the process ends, so this is never destroyed.
struct Delivery {
  const ProcessGuard guard;
  std::mutex mutex;
  std::shared_ptr<ActivitySink> sink;
};

// A forked child begins anew: what it inherited is the parent's, perhaps locked for ever.
Delivery& delivery() {
  static std::atomic<Delivery*> only{new Delivery};
  Delivery* found = only;
  if (!found->guard.is_owner()) {
    auto* const own = new Delivery;
    if (only.compare_exchange_strong(found, own)) return *own;
    delete own;
  }
  return *found;
}

std::shared_ptr<ActivitySink> current_sink() noexcept {
  Delivery& to = delivery();
  const std::lock_guard<std::mutex> lock(to.mutex);
  return to.sink;
}

// Add what CUPTI dropped since it was last asked. The global queue is context null, stream 0.
void count_dropped(ActivitySink& sink, cupti::Context context, uint32_t stream) noexcept {
  size_t dropped = 0;
  if (sink.cupti->num_dropped_records(context, stream, &dropped) == cupti::kSuccess) {
    sink.dropped_records += dropped;
  }
}

void on_buffer_requested(uint8_t** buffer, size_t* size, size_t* max_num_records) noexcept {
  const int64_t begin_ns = monotonic_ns();
  *buffer = nullptr;
  *size = 0;
  *max_num_records = 0;  // as many as fit
  const std::shared_ptr<ActivitySink> sink = current_sink();
  if (sink == nullptr) return;
  *buffer = sink->buffers.acquire();
  if (*buffer != nullptr) *size = sink->buffers.buffer_bytes();
  sink->callback_ns += static_cast<uint64_t>(monotonic_ns() - begin_ns);
}

void on_buffer_completed(cupti::Context context, uint32_t stream, uint8_t* buffer, size_t,
                         size_t valid_size) noexcept {
  const int64_t begin_ns = monotonic_ns();
  const std::shared_ptr<ActivitySink> sink = current_sink();
  if (sink == nullptr) return;
  if (buffer != nullptr) sink->buffers.complete(buffer, valid_size);
  count_dropped(*sink, context, stream);
  sink->callback_ns += static_cast<uint64_t>(monotonic_ns() - begin_ns);
}

bool has_cuda_driver() {
  try {
    const SharedLibrary driver("libcuda.so.1");
    return true;
  } catch (const Error&) {
    return false;
  }
}

[[noreturn]] void refuse(const Cupti& cupti, const std::string& action, cupti::Result result) {
  const std::string what = action + " failed with " + cupti.result_name(result) + " (" + cupti.path() + ")";
  switch (result) {
    case cupti::kErrorMultipleSubscribersNotSupported: {
      const std::string others = visible_profilers();
      throw Error(ErrorCode::kTaken, "another profiler holds CUPTI in this process: " +
                                         (others.empty() ? std::string("none that is visible") : others) +
                                         "; " + what);
    }
    case cupti::kErrorInsufficientPrivileges:
    case cupti::kErrorVirtualizedDeviceInsufficientPrivileges:
      throw Error(ErrorCode::kForbidden, "the driver does not permit tracing: " + what);
    default:
      if (!has_cuda_driver()) {
        throw Error(ErrorCode::kNotFound, "no CUDA driver: libcuda.so.1 does not load; " + what);
      }
      throw Error(ErrorCode::kUnsupported, what);
  }
}

}  // namespace

// All that must be undone, in the order it was done. Shared with the threads that call CUPTI, which may be
// late.
struct CuptiSession::State {
  explicit State(std::shared_ptr<ActivitySink> to) : sink(std::move(to)) {}

  void start(const CuptiSettings& settings);
  void claim_delivery();
  void require(cupti::Result result, const std::string& action) const;
  void enable();
  void disable() noexcept;
  void pause();
  void flush();
  void undo() noexcept;

  const std::shared_ptr<ActivitySink> sink;
  cupti::Subscriber subscriber = nullptr;
  bool is_subscribed = false;
  bool has_delivery = false;
  bool has_zeroed_buffers = false;
  bool has_flush_period = false;
  bool was_enabled = false;
  bool was_paused = false;
  std::vector<const Kind*> enabled;
  std::atomic<bool> is_stuck{false};
};

void CuptiSession::State::start(const CuptiSettings& settings) {
  const Cupti& cupti = *sink->cupti;
  claim_delivery();
  require(cupti.subscribe(&subscriber), "cuptiSubscribe");
  is_subscribed = true;
  require(cupti.register_callbacks(on_buffer_requested, on_buffer_completed),
          "cuptiActivityRegisterCallbacks");
  // Else CUPTI zeroes each buffer itself, in the program's own thread.
  has_zeroed_buffers = cupti.set_zeroed_buffers(true) == cupti::kSuccess;
  has_flush_period =
      settings.flush_period_ms > 0 && cupti.set_flush_period(settings.flush_period_ms) == cupti::kSuccess;
  if (!settings.is_paused) enable();
}

void CuptiSession::State::claim_delivery() {
  Delivery& to = delivery();
  const std::lock_guard<std::mutex> lock(to.mutex);
  if (to.sink != nullptr) throw Error(ErrorCode::kTaken, "a kernel tracer already runs in this process");
  to.sink = sink;
  has_delivery = true;
}

void CuptiSession::State::require(cupti::Result result, const std::string& action) const {
  if (result != cupti::kSuccess) refuse(*sink->cupti, action, result);
}

void CuptiSession::State::enable() {
  was_enabled = true;
  for (const Kind& kind : kKinds) {
    const cupti::Result result = sink->cupti->enable(kind.number);
    if (result == cupti::kSuccess) {
      enabled.push_back(&kind);
      continue;
    }
    disable();
    refuse(*sink->cupti, std::string("cuptiActivityEnable(") + kind.name + ")", result);
  }
}

void CuptiSession::State::disable() noexcept {
  for (const Kind* kind : enabled) sink->cupti->disable(kind->number);
  enabled.clear();
}

// CUPTI 13.0 goes on recording replayed graphs after the first disable, if the kinds had been enabled before
// the context was made; after another enable and disable it stops (docs/decisions/0008).
void CuptiSession::State::pause() {
  disable();
  if (!was_paused) {
    was_paused = true;
    enable();
    disable();
  }
  flush();
}

void CuptiSession::State::flush() {
  require(sink->cupti->flush_all(0), "cuptiActivityFlushAll");
  count_dropped(*sink, nullptr, 0);
}

void CuptiSession::State::undo() noexcept {
  const Cupti& cupti = *sink->cupti;
  disable();
  if (has_flush_period) cupti.set_flush_period(0);
  if (was_enabled) {
    cupti.flush_all(0);  // complete records first: a forced flush gives incomplete ones zero time stamps
    cupti.flush_all(cupti::kFlushForced);
    count_dropped(*sink, nullptr, 0);  // no buffer may have been completed since the last were dropped
  }
  if (has_zeroed_buffers) cupti.set_zeroed_buffers(false);
  if (is_subscribed) cupti.unsubscribe(subscriber);
  if (has_delivery) {
    Delivery& to = delivery();
    const std::lock_guard<std::mutex> lock(to.mutex);
    to.sink = nullptr;
  }
}

CuptiSession::CuptiSession(std::shared_ptr<ActivitySink> sink, const CuptiSettings& settings)
    : state_(std::make_shared<State>(std::move(sink))) {
  try {
    state_->start(settings);
  } catch (...) {
    state_->undo();
    throw;
  }
}

std::vector<std::string> CuptiSession::kinds() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

void CuptiSession::flush(int64_t timeout_ns) {
  call(timeout_ns, [](State& state) { state.flush(); });
}

void CuptiSession::pause(int64_t timeout_ns) {
  call(timeout_ns, [](State& state) { state.pause(); });
}

void CuptiSession::resume(int64_t timeout_ns) {
  call(timeout_ns, [](State& state) { state.enable(); });
}

// Run `body` on a thread of its own, and wait for it with patience.
void CuptiSession::call(int64_t timeout_ns, void (*body)(State&)) {
  if (state_ == nullptr) return;
  const std::string no_return =
      "CUPTI did not return within " + std::to_string(timeout_ns / kNsPerSecond) + " s";
  if (state_->is_stuck) throw Error(ErrorCode::kUnsupported, no_return);
  const auto failure = std::make_shared<std::exception_ptr>();
  const bool is_back = finishes_within(timeout_ns, [state = state_, failure, body] {
    try {
      body(*state);
    } catch (...) {
      *failure = std::current_exception();
    }
  });
  state_->is_stuck = !is_back;
  if (!is_back) throw Error(ErrorCode::kUnsupported, no_return);
  if (*failure != nullptr) std::rethrow_exception(*failure);
}

bool CuptiSession::stop() noexcept {
  constexpr int64_t kPatienceNs = 10 * kNsPerSecond;
  const std::shared_ptr<State> state = std::move(state_);
  if (state == nullptr) return true;
  if (state->is_stuck) return false;
  try {
    return finishes_within(kPatienceNs, [state] { state->undo(); });
  } catch (...) {  // no thread to be had: better to wait for CUPTI than to leave it on
    state->undo();
    return true;
  }
}

}  // namespace qmeter
