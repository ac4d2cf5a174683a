#include "collect/kernel_tracer.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread.h"
#include "collect/cupti_session.h"

namespace qmeter {
namespace {

constexpr int64_t kPatienceNs = 10 * kNsPerSecond;        // with CUPTI, where a program waits for us
constexpr int64_t kHoldNs = 300'000'000;                  // how long CUPTI may hold back complete records
constexpr int64_t kQuietAfterPauseNs = 2 * kNsPerSecond;  // what was in flight at a pause is over by then

}  // namespace

std::string KernelTracerStats::json() const {
  return JsonObject()
      .add("name", "kernel_tracer")
      .add("kernels", counts.kernels)
      .add("graph_nodes", counts.graph_nodes)
      .add("memcpys", counts.memcpys)
      .add("memsets", counts.memsets)
      .add("dropped_records", dropped_records)
      .add("zero_timestamps", counts.zero_timestamps)
      .add("reversed_timestamps", counts.reversed_timestamps)
      .add("unknown_records", counts.unknown_records)
      .add("buffers_in_use_max", buffers.in_use_max)
      .add("buffers_denied", buffers.denied)
      .add("decode_ns", decode_ns)
      .add("callback_ns", callback_ns)
      .add_raw("error", error.empty() ? "null" : json_string(error))
      .text();
}

// CUPTI's callbacks → queue of full buffers → decoder thread → spool.
class KernelTracer::Pipeline {
 public:
  Pipeline(std::shared_ptr<Spool> spool, const CuptiSearch& found, const KernelTracerOptions& options)
      : spool_(std::move(spool)),
        options_(options),
        sink_(std::make_shared<ActivitySink>(found.cupti, options.buffer_bytes, options.buffer_budget_bytes)),
        decoder_(found.cupti, spool_),
        session_(sink_, {options.flush_period_ms, options.is_paused}),
        info_{found.cupti->path(), found.cupti->version(), found.how, CuptiSession::kinds()},
        has_windows_(options.has_windows || options.is_paused),
        window_start_ns_(options.is_paused ? std::nullopt : std::optional<int64_t>(realtime_ns())),
        thread_(start_thread("qmeter-decode", [this] { run(); })) {
    // An empty window says that there are windows, even if recording never begins.
    const int64_t now_ns = window_start_ns_.value_or(realtime_ns());
    append_window(now_ns, now_ns);
  }

  ~Pipeline() { close(); }

  const KernelTracerInfo& info() const noexcept { return info_; }

  void flush() {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    if (!thread_.joinable()) return;
    take_in(3 * kPatienceNs, &CuptiSession::flush);
    append_stats();
  }

  void pause() {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    if (!thread_.joinable() || !window_start_ns_) return;
    const int64_t end_ns = realtime_ns();
    take_in(kPatienceNs, &CuptiSession::pause);
    has_windows_ = true;
    write_window(end_ns);
    window_start_ns_.reset();
    paused_ns_ = monotonic_ns();
  }

  void resume() {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    if (!thread_.joinable() || window_start_ns_) return;
    session_.resume(kPatienceNs);
    window_start_ns_ = realtime_ns();
    append_window(*window_start_ns_, *window_start_ns_);
  }

  void tend() {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    const int64_t now_ns = monotonic_ns();
    if (!thread_.joinable() || (!window_start_ns_ && now_ns - paused_ns_ > kQuietAfterPauseNs)) return;
    const int64_t since_epoch_ns = realtime_ns() - now_ns;
    int64_t delivered_ns = std::max(flushed_ns_, sink_->buffers.held_since_ns().value_or(now_ns));
    if (now_ns - delivered_ns >= kHoldNs && take_in(kPatienceNs, &CuptiSession::flush)) {
      flushed_ns_ = delivered_ns = now_ns;
    }
    if (window_start_ns_ && since_epoch_ns + delivered_ns - *window_start_ns_ >= kHoldNs) {
      sink_->buffers.wait_recycled(kPatienceNs);
      write_window(since_epoch_ns + delivered_ns);
    }
  }

  void close() noexcept {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    if (!thread_.joinable()) return;
    const int64_t end_ns = realtime_ns();
    if (!session_.stop()) note_error("CUPTI did not return within ten seconds; its last records are lost");
    sink_->buffers.close();
    thread_.join();
    if (window_start_ns_) write_window(end_ns);
    append_stats();
  }

  KernelTracerStats stats() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    KernelTracerStats stats;
    stats.counts = counts_;
    stats.buffers = sink_->buffers.stats();
    stats.dropped_records = sink_->dropped_records;
    stats.decode_ns = decode_ns_;
    stats.callback_ns = sink_->callback_ns;
    stats.error = error_.empty() ? counts_.error : error_;
    return stats;
  }

  std::vector<std::vector<uint8_t>> raw_buffers() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return raw_buffers_;
  }

  const std::shared_ptr<const Cupti>& cupti() const noexcept { return sink_->cupti; }

 private:
  void run() noexcept {
    constexpr int64_t kStatsPeriodNs = kNsPerSecond;
    int64_t stats_due_ns = monotonic_ns() + kStatsPeriodNs;
    while (true) {
      const auto buffer = sink_->buffers.next_completed(kStatsPeriodNs);
      if (buffer) {
        decode(*buffer);
      } else if (sink_->buffers.is_closed()) {
        return;
      }
      if (monotonic_ns() >= stats_due_ns) {
        append_stats();
        stats_due_ns = monotonic_ns() + kStatsPeriodNs;
      }
    }
  }

  void decode(const ActivityBuffer& buffer) noexcept {
    try {
      keep_raw(buffer);
      records_.clear();
      decoder_.decode(buffer.data, buffer.valid_bytes, records_);
    } catch (const std::exception& error) {
      note_error(error.what());
    }
    if (spool_ != nullptr) spool_->append(RecordKind::kKernel, records_);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      counts_ = decoder_.counts();
      decode_ns_ = static_cast<uint64_t>(thread_cpu_ns());
    }
    sink_->buffers.recycle(buffer);  // only now: whoever waits for it may look at the counts next
  }

  void keep_raw(const ActivityBuffer& buffer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (raw_buffers_.size() >= options_.keep_raw_buffers) return;
    raw_buffers_.emplace_back(buffer.data, buffer.data + buffer.valid_bytes);
  }

  // Have CUPTI give what it has, and wait until it is in the spool. False if that failed.
  bool take_in(int64_t timeout_ns, void (CuptiSession::*how)(int64_t)) {
    try {
      (session_.*how)(timeout_ns);
    } catch (const std::exception& error) {
      note_error(error.what());
      return false;
    }
    if (sink_->buffers.wait_recycled(timeout_ns)) return true;
    note_error("the decoder fell behind by more than ten seconds");
    return false;
  }

  // The part of the window that ends here; the next part begins where this one ends.
  void write_window(int64_t end_ns) noexcept {
    if (end_ns <= *window_start_ns_) return;
    append_window(*window_start_ns_, end_ns);
    window_start_ns_ = end_ns;
  }

  void append_window(int64_t start_ns, int64_t end_ns) noexcept {
    const TraceWindowRecord window{start_ns, end_ns};
    if (has_windows_ && spool_ != nullptr)
      spool_->append(RecordKind::kTraceWindow, &window, sizeof window, 1);
  }

  void append_stats() noexcept {
    if (spool_ == nullptr) return;
    try {
      spool_->append_stats(stats().json());
    } catch (const std::exception&) {  // no memory for a statistic: the next one comes in a second
    }
  }

  void note_error(const char* error) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    try {
      if (error_.empty()) error_ = error;
    } catch (const std::exception&) {
      error_ = "out of memory";  // fits the small-string buffer
    }
  }

  const std::shared_ptr<Spool> spool_;
  const KernelTracerOptions options_;
  const std::shared_ptr<ActivitySink> sink_;
  ActivityDecoder decoder_;  // the decoder thread's, as is the next
  std::vector<KernelRecord> records_;
  mutable std::mutex mutex_;  // of the next four
  DecodeCounts counts_;
  uint64_t decode_ns_ = 0;
  std::string error_;
  std::vector<std::vector<uint8_t>> raw_buffers_;
  std::mutex control_mutex_;
  CuptiSession session_;
  const KernelTracerInfo info_;
  bool has_windows_;                        // the control mutex's, as are the next three
  std::optional<int64_t> window_start_ns_;  // CLOCK_REALTIME; empty while paused
  int64_t paused_ns_ = 0;                   // CLOCK_MONOTONIC, as is the next
  int64_t flushed_ns_ = 0;
  std::thread thread_;
};

KernelTracer::KernelTracer(std::shared_ptr<Spool> spool, const CuptiSearch& found,
                           const KernelTracerOptions& options)
    : pipeline_(std::make_unique<Pipeline>(std::move(spool), found, options)) {}

KernelTracer::~KernelTracer() {
  if (!guard_.is_owner()) pipeline_.release();  // its thread and perhaps its locks are the parent's
}

KernelTracerInfo KernelTracer::info() const { return pipeline_->info(); }

void KernelTracer::flush() {
  if (guard_.is_owner()) pipeline_->flush();
}

void KernelTracer::pause() {
  if (guard_.is_owner()) pipeline_->pause();
}

void KernelTracer::resume() {
  if (guard_.is_owner()) pipeline_->resume();
}

void KernelTracer::tend() {
  if (guard_.is_owner()) pipeline_->tend();
}

KernelTracerStats KernelTracer::stats() const {
  return guard_.is_owner() ? pipeline_->stats() : KernelTracerStats{};
}

std::vector<std::vector<uint8_t>> KernelTracer::raw_buffers() const {
  return guard_.is_owner() ? pipeline_->raw_buffers() : std::vector<std::vector<uint8_t>>{};
}

DecodeBenchmark KernelTracer::benchmark_decode(size_t repeats) const {
  std::vector<std::vector<uint8_t>> buffers = raw_buffers();
  if (buffers.empty()) throw Error(ErrorCode::kInvalid, "no raw buffers were kept: set keep_raw_buffers");
  DecodeBenchmark result;
  std::vector<KernelRecord> records;
  for (size_t repeat = 0; repeat < repeats + 1; ++repeat) {
    ActivityDecoder decoder(pipeline_->cupti(), nullptr);
    records.clear();
    const int64_t begin_ns = thread_cpu_ns();
    for (auto& buffer : buffers) decoder.decode(buffer.data(), buffer.size(), records);
    const double seconds = static_cast<double>(thread_cpu_ns() - begin_ns) / kNsPerSecond;
    if (repeat > 0) result.seconds.push_back(seconds);  // the first one only warms up memory and caches
  }
  for (const auto& buffer : buffers) result.raw_bytes += buffer.size();
  result.records = records.size();
  result.bytes_per_record = sizeof(KernelRecord);
  return result;
}

void KernelTracer::close() noexcept {
  if (guard_.is_owner()) pipeline_->close();
}

}  // namespace qmeter
