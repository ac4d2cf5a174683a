#include "collect/pm_sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread.h"
#include "collect/pm_session.h"

namespace qmeter {
namespace {

constexpr int64_t kMinIntervalNs = 1000;         // measured on GH100; below, hardware drops samples
constexpr int64_t kDecodePeriodNs = 10'000'000;  // at least, between two looks into the hardware buffer
constexpr int kIdleRounds = 2;  // decodes without a sample, after which a stopped buffer is empty
constexpr int64_t kForeverNs = int64_t{1} << 60;  // 36 years

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

PmDecoderSettings decoder_settings(const PmSamplerOptions& options) {
  return {options.device, options.metrics, options.interval_ns, options.image_samples, num_evaluators()};
}

}  // namespace

std::string PmSamplerStats::json(int16_t device) const {
  return JsonObject()
      .add("name", "pm_sampler_" + std::to_string(device))
      .add("samples", counts.samples)
      .add("dropped_first", counts.dropped_first)
      .add("overflows", counts.overflows)
      .add("decode_failures", counts.decode_failures)
      .add("evaluate_failures", counts.evaluate_failures)
      .add("lost_samples", counts.lost_samples)
      .add("decode_ns", counts.decode_ns)
      .add("evaluate_ns", counts.evaluate_ns)
      .add_raw("error", error.empty() ? "null" : json_string(error))
      .text();
}

// GPU → hardware buffer → decoding thread, which lives from a start until its last sample is decoded → spool.
class PmSampler::Sampling {
 public:
  Sampling(std::shared_ptr<Spool> spool, std::shared_ptr<const CuptiProfiler> profiler,
           const CudaDriver& cuda, const PmSamplerOptions& options)
      : options_(require_valid(options)),
        spool_(std::move(spool)),
        enable_ns_(realtime_ns()),
        session_(std::make_unique<PmSession>(std::move(profiler), cuda, session_settings(options))),
        decoder_(std::make_unique<PmDecoder>(spool_, *session_, decoder_settings(options))),
        info_(make_info()) {}

  ~Sampling() { close(); }

  const PmSamplerInfo& info() const noexcept { return info_; }

  void start() {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    if (session_ == nullptr) throw Error(ErrorCode::kInvalid, "this PM sampler is closed");
    if (is_in(State::kSampling)) return;
    join();
    decoder_->begin_burst(options_.max_samples);
    session_->start();
    mark_started();
    try {
      thread_ = start_thread("qmeter-pm", [this] { run(); });
    } catch (...) {
      halt();
      throw;
    }
  }

  void stop() noexcept {
    const std::lock_guard<std::mutex> one_at_a_time(control_mutex_);
    halt();
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
  enum class State { kIdle, kSampling, kStopping, kStopped };

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

  bool is_in(State state) const noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return state_ == state;
  }

  void mark_started() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    state_ = State::kSampling;
    burst_start_ns_ = realtime_ns();
    if (start_ns_ == 0) start_ns_ = burst_start_ns_;
  }

  // Stop the GPU's sampling, once a burst, on whatever thread comes first.
  void halt() noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (state_ != State::kSampling) return;
      state_ = State::kStopping;
      burst_stop_ns_ = realtime_ns();
    }
    const cupti::Result result = session_->stop();
    if (result != cupti::kSuccess) decoder_->note_failure(result, "cuptiPmSamplingStop");
    const std::lock_guard<std::mutex> lock(mutex_);
    state_ = State::kStopped;
    stop_ns_ = realtime_ns();
    wake_.notify_all();
  }

  void join() noexcept {
    if (thread_.joinable()) thread_.join();
  }

  // The decoding thread. While the GPU samples, it keeps within its budget; then it decodes what is left.
  void run() noexcept {
    const int64_t begin_ns = monotonic_ns();
    const uint64_t spent_before_ns = spent_ns();
    const int64_t deadline_ns = begin_ns + most_ns();
    while (true) {
      const int64_t round_ns =
          std::max(monotonic_ns() + kDecodePeriodNs, begin_ns + time_worth(spent_ns() - spent_before_ns));
      if (!sleep_until(std::min(round_ns, deadline_ns))) break;
      if (monotonic_ns() < deadline_ns) decoder_->decode();
      if (monotonic_ns() >= deadline_ns || decoder_->is_full()) halt();
    }
    for (int idle = 0; idle < kIdleRounds;) idle = decoder_->decode() > 0 ? 0 : idle + 1;
    decoder_->end_burst(burst_start_ns_, burst_stop_ns_);
    append_stats();
  }

  uint64_t spent_ns() const {
    const PmCounts counts = decoder_->counts();
    return counts.decode_ns + counts.evaluate_ns;
  }

  // How long sampling must last for this much CPU time to be within the budget.
  int64_t time_worth(uint64_t cpu_ns) const noexcept {
    const double time_ns = static_cast<double>(cpu_ns) / options_.decode_budget;
    return options_.decode_budget > 0 && time_ns < kForeverNs ? static_cast<int64_t>(time_ns) : kForeverNs;
  }

  // How long a burst may last. One sample more, as the first is dropped.
  int64_t most_ns() const noexcept {
    if (options_.max_samples == 0) return kForeverNs;
    const double time_ns = (static_cast<double>(options_.max_samples) + 1) * options_.interval_ns;
    return static_cast<int64_t>(std::min<double>(time_ns, kForeverNs));
  }

  // False as soon as sampling has stopped.
  bool sleep_until(int64_t due_ns) noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    while (state_ != State::kStopped && monotonic_ns() < due_ns) {
      wake_.wait_for(lock, std::chrono::nanoseconds(std::min(due_ns - monotonic_ns(), kNsPerSecond)));
    }
    return state_ != State::kStopped;
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
  std::unique_ptr<PmSession> session_;  // the control mutex's
  std::unique_ptr<PmDecoder> decoder_;  // gone after `close`, as is the session
  const PmSamplerInfo info_;
  std::mutex control_mutex_;
  mutable std::mutex mutex_;  // of the following
  std::condition_variable wake_;
  State state_ = State::kIdle;
  int64_t burst_start_ns_ = 0;
  int64_t burst_stop_ns_ = 0;
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
