#include "collect/pm_sampler.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread.h"
#include "collect/pm_pace.h"
#include "collect/pm_session.h"

namespace qmeter {
namespace {

constexpr int64_t kMinIntervalNs = 1000;  // measured on GH100; below, hardware drops samples
constexpr uint64_t kSpareSamples = 3;     // beyond a limit: one is dropped, and those at the ends not whole

const PmSamplerOptions& require_valid(const PmSamplerOptions& options) {
  const bool is_valid = options.interval_ns >= kMinIntervalNs && options.hardware_buffer_bytes > 0 &&
                        options.image_samples > 0 && options.decode_budget >= 0 && !options.metrics.empty();
  if (is_valid) return options;
  throw Error(
      ErrorCode::kInvalid,
      "PM sampling needs metrics, an interval of at least 1000 ns, buffers, and a decode budget from 0 on");
}

size_t num_evaluators() { return std::clamp<size_t>(std::thread::hardware_concurrency() / 4, 1, 4); }

PmSessionSettings session_settings(const PmSamplerOptions& options) {
  PmSessionSettings settings{options.uuid, {}, options.interval_ns, options.hardware_buffer_bytes};
  for (const PmMetric& metric : options.metrics) settings.metrics.push_back(metric.name);
  return settings;
}

PmPace pace_of(const PmSamplerOptions& options) {
  return PmPace({options.interval_ns, options.image_samples, options.decode_budget, options.metrics.size()});
}

PmDecoderSettings decoder_settings(const PmSamplerOptions& options, const PmPace& pace) {
  return {options.device, options.metrics, options.interval_ns, pace.image_samples(), num_evaluators()};
}

}  // namespace

std::string PmSamplerStats::json(int16_t device) const {
  return JsonObject()
      .add("name", "pm_sampler_" + std::to_string(device))
      .add("bursts", counts.bursts)
      .add("samples", counts.samples)
      .add("sampled_ns", counts.sampled_ns)
      .add("dropped_first", counts.dropped_first)
      .add("dropped_long", counts.dropped_long)
      .add("overflows", counts.overflows)
      .add("full_images", counts.full_images)
      .add("decode_failures", counts.decode_failures)
      .add("evaluate_failures", counts.evaluate_failures)
      .add("lost_samples", counts.lost_samples)
      .add("decode_ns", counts.decode_ns)
      .add("evaluate_ns", counts.evaluate_ns)
      .add_raw("error", error.empty() ? "null" : json_string(error))
      .text();
}

// GPU → hardware buffer → a thread, which lives from a start until its last sample is decoded → spool. It
// alone stops the session, and starts it again for the bursts after the first.
class PmSampler::Sampling {
 public:
  Sampling(std::shared_ptr<Spool> spool, std::shared_ptr<const CuptiProfiler> profiler,
           const CudaDriver& cuda, const PmSamplerOptions& options)
      : options_(require_valid(options)),
        spool_(std::move(spool)),
        enable_ns_(realtime_ns()),
        session_(std::make_unique<PmSession>(std::move(profiler), cuda, session_settings(options))),
        pace_(pace_of(options)),
        decoder_(std::make_unique<PmDecoder>(spool_, *session_, decoder_settings(options, pace_))),
        info_(make_info()) {}

  ~Sampling() { close(); }

  PmSamplerInfo info() const {
    PmSamplerInfo info = info_;
    info.mode = pace_.is_continuous() ? "continuous" : "bursts";
    return info;
  }

  void start() {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    if (session_ == nullptr) throw Error(ErrorCode::kInvalid, "this PM sampler is closed");
    if (is_wanted()) return;
    join();
    decoder_->set_limit(options_.max_samples);
    begin_burst();
    set_wanted(true);
    try {
      thread_ = start_thread("qmeter-pm", [this] { run(); });
    } catch (...) {
      end_burst();
      set_wanted(false);
      throw;
    }
  }

  void stop() noexcept {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    set_wanted(false);
    join();
  }

  void close() noexcept {
    stop();
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    if (session_ == nullptr) return;
    append_stats();
    std::unique_ptr<PmDecoder> decoder;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      final_counts_ = decoder_->counts();
      final_error_ = decoder_->error();
      decoder = std::move(decoder_);
    }
    decoder.reset();
    session_.reset();
    append_window(realtime_ns());
  }

  PmSamplerStats stats() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (decoder_ == nullptr) return {final_counts_, start_ns_, stop_ns_, final_error_};
    return {decoder_->counts(), start_ns_, stop_ns_, decoder_->error()};
  }

 private:
  PmSamplerInfo make_info() const {
    const PmTrigger& trigger = session_->trigger();
    const bool is_by_time = trigger.mode == cupti::kTriggerTimeInterval;
    PmSamplerInfo info;
    info.chip = session_->chip();
    info.trigger = is_by_time ? "gpu_time" : "sysclk";
    info.interval_ns = options_.interval_ns;
    if (!is_by_time) info.interval_cycles = trigger.interval;
    info.num_metrics = options_.metrics.size();
    info.config_bytes = session_->config_bytes();
    info.image_bytes = decoder_->image_bytes();
    info.num_sms = session_->num_sms();
    info.path = session_->profiler()->path();
    info.version = session_->profiler()->version();
    info.setup_ns = realtime_ns() - enable_ns_;
    return info;
  }

  bool is_wanted() const noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return is_wanted_;
  }

  void set_wanted(bool is_wanted) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_wanted_ = is_wanted;
    wake_.notify_all();
  }

  void join() noexcept {
    if (thread_.joinable()) thread_.join();
  }

  // Throws Error.
  void begin_burst() {
    const int64_t start_ns = realtime_ns();
    session_->start();
    decoder_->begin_burst(start_ns);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (start_ns_ == 0) start_ns_ = start_ns;
  }

  // Stop the session and decode all of it.
  void end_burst() noexcept {
    const int64_t burst_stop_ns = realtime_ns();
    const cupti::Result result = session_->stop();
    if (result != cupti::kSuccess) decoder_->note_failure(result, "cuptiPmSamplingStop");
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ns_ = realtime_ns();
    }
    while (decoder_->decode() > 0) {
    }
    decoder_->end_burst(burst_stop_ns);
  }

  // The thread.
  void run() noexcept {
    const int64_t begin_ns = monotonic_ns();
    const uint64_t spent_before_ns = pace_.spent_ns(decoder_->counts());
    while (true) {
      sample();
      end_burst();
      if (decoder_->is_full()) break;
      const uint64_t spent_ns = pace_.spent_ns(decoder_->counts()) - spent_before_ns;
      if (!sleep_until(begin_ns + pace_.time_worth_ns(spent_ns))) break;
      if (!begin_next_burst()) break;
    }
    set_wanted(false);
    append_stats();
  }

  // While the session runs: until the image would be full, or as long as decoding follows.
  void sample() noexcept {
    const int64_t begin_ns = monotonic_ns();
    const int64_t deadline_ns = begin_ns + most_ns();
    if (!pace_.is_continuous()) {
      sleep_until(std::min(begin_ns + pace_.burst_ns(), deadline_ns));
      return;
    }
    const PmCounts before = decoder_->counts();
    while (pace_.is_continuous() && monotonic_ns() < deadline_ns && !decoder_->is_full()) {
      if (!sleep_until(std::min(monotonic_ns() + pace_.poll_ns(), deadline_ns))) return;
      decoder_->decode();
      pace_.look_at(before, decoder_->counts());
    }
  }

  bool begin_next_burst() noexcept {
    try {
      begin_burst();
      return true;
    } catch (const std::exception& error) {
      decoder_->note_error(error.what());
      return false;
    }
  }

  // How long a burst may last for the limit.
  int64_t most_ns() const noexcept {
    if (options_.max_samples == 0) return kForeverNs;
    const double num_samples = static_cast<double>(decoder_->num_left() + kSpareSamples);
    return static_cast<int64_t>(std::min<double>(num_samples * options_.interval_ns, kForeverNs));
  }

  // False as soon as sampling is not wanted any more.
  bool sleep_until(int64_t due_ns) noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    while (is_wanted_ && monotonic_ns() < due_ns) {
      wake_.wait_for(lock, std::chrono::nanoseconds(std::min(due_ns - monotonic_ns(), kNsPerSecond)));
    }
    return is_wanted_;
  }

  void append_stats() noexcept {
    if (spool_ == nullptr) return;
    try {
      spool_->append_stats(stats().json(options_.device));
    } catch (const std::exception&) {  // no memory for a statistic: those of the next stop may have it
    }
  }

  // A session that was never started has an empty window of samples at its beginning.
  void append_window(int64_t disable_ns) noexcept {
    if (spool_ == nullptr) return;
    const bool was_started = start_ns_ > 0;
    const CounterWindowRecord window{options_.device,
                                     enable_ns_,
                                     was_started ? start_ns_ : enable_ns_,
                                     was_started ? stop_ns_ : enable_ns_,
                                     disable_ns,
                                     options_.interval_ns,
                                     static_cast<int64_t>(final_counts_.samples),
                                     static_cast<int64_t>(final_counts_.lost_samples)};
    spool_->append(RecordKind::kCounterWindow, &window, sizeof window, 1);
  }

  const PmSamplerOptions options_;
  const std::shared_ptr<Spool> spool_;
  const int64_t enable_ns_;
  std::unique_ptr<PmSession> session_;  // the control mutex's, and the thread's
  PmPace pace_;
  std::unique_ptr<PmDecoder> decoder_;  // gone after `close`, as is the session
  const PmSamplerInfo info_;
  std::mutex control_mutex_;
  mutable std::mutex mutex_;  // of the following
  std::condition_variable wake_;
  bool is_wanted_ = false;  // between start and stop, unless the limit is reached
  int64_t start_ns_ = 0;
  int64_t stop_ns_ = 0;
  PmCounts final_counts_;
  std::string final_error_;
  std::thread thread_;
};

PmSampler::PmSampler(std::shared_ptr<Spool> spool, std::shared_ptr<const CuptiProfiler> profiler,
                     const std::shared_ptr<const CudaDriver>& cuda, const PmSamplerOptions& options)
    : sampling_(std::make_unique<Sampling>(std::move(spool), std::move(profiler), *cuda, options)) {}

PmSampler::~PmSampler() {
  if (!guard_.is_owner())
    sampling_.release();  // its session, its thread and perhaps its locks are the parent's
}

PmSamplerInfo PmSampler::info() const { return sampling_->info(); }

PmSamplerStats PmSampler::stats() const { return guard_.is_owner() ? sampling_->stats() : PmSamplerStats{}; }

void PmSampler::start() {
  if (guard_.is_owner()) sampling_->start();
}

void PmSampler::stop() noexcept {
  if (guard_.is_owner()) sampling_->stop();
}

void PmSampler::close() noexcept {
  if (guard_.is_owner()) sampling_->close();
}

}  // namespace qmeter
