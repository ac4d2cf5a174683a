#include "collect/pm_decoder.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

#include "base/clock.h"
#include "base/error.h"

namespace qmeter {
namespace {

MetricNames names_of(const std::vector<PmMetric>& metrics) {
  MetricNames names;
  for (const PmMetric& metric : metrics) names.push_back(metric.name);
  return names;
}

size_t required_bytes(const PmSession& session, const PmDecoderSettings& settings) {
  size_t bytes = 0;
  const cupti::Result result = session.profiler()->image_bytes(
      bytes, session.object(), names_of(settings.metrics), settings.image_samples);
  if (result == cupti::kSuccess) return bytes;
  throw Error(ErrorCode::kUnsupported,
              "cuptiPmSamplingGetCounterDataSize failed with " + session.profiler()->result_name(result));
}

constexpr double kLongest = 1.5;                // intervals
constexpr int64_t kClockToleranceNs = 100'000;  // between CUPTI's stamps and the host's

// Whole intervals in a hole of the stamps; they are contiguous where nothing is lost.
uint64_t intervals_in(int64_t hole_ns, int64_t interval_ns) {
  if (hole_ns <= 0 || interval_ns <= 0) return 0;
  return static_cast<uint64_t>((hole_ns + interval_ns / 2) / interval_ns);
}

}  // namespace

PmDecoder::PmDecoder(std::shared_ptr<Spool> spool, const PmSession& session,
                     const PmDecoderSettings& settings)
    : spool_(std::move(spool)),
      session_(session),
      profiler_(session.profiler()),
      settings_(settings),
      evaluator_(profiler_, session.chip(), session.availability(), names_of(settings.metrics),
                 {settings.image_samples, settings.num_threads}),
      image_(required_bytes(session, settings)),
      times_(settings.image_samples) {
  records_.reserve(times_.size() * settings_.metrics.size());
  if (!empty_image()) throw Error(ErrorCode::kUnsupported, error());
}

void PmDecoder::set_limit(uint64_t max_samples) noexcept {
  max_samples_ = max_samples;
  num_recorded_ = 0;
}

void PmDecoder::begin_burst(int64_t start_ns) noexcept {
  burst_ = Burst{};
  burst_.start_ns = start_ns;
  burst_.interval_ns = settings_.interval_ns;
}

// Decoding into an image that holds samples repeats them, so it is emptied whenever something was put in.
size_t PmDecoder::decode() noexcept {
  const int64_t begin_ns = thread_cpu_ns();
  const size_t num_samples = is_image_empty_ || empty_image() ? fill_image() : 0;
  read_times(num_samples);
  pending_.decode_ns += static_cast<uint64_t>(thread_cpu_ns() - begin_ns);
  if (num_samples > 0) take(num_samples);
  if (!is_image_empty_) {
    const int64_t empty_ns = thread_cpu_ns();
    empty_image();
    pending_.decode_ns += static_cast<uint64_t>(thread_cpu_ns() - empty_ns);
  }
  publish();
  return num_samples;
}

void PmDecoder::end_burst(int64_t stop_ns) noexcept {
  const int64_t missing_ns = stop_ns - burst_.last_end_ns.value_or(burst_.start_ns);
  if (missing_ns > 2 * burst_.interval_ns + kClockToleranceNs) {
    pending_.lost_samples += intervals_in(missing_ns, burst_.interval_ns);
  }
  ++pending_.bursts;
  publish();
}

// Returns the number of samples that are in the image now.
size_t PmDecoder::fill_image() noexcept {
  PmDecodeEnd end;
  PmImageInfo info;
  const cupti::Result result = profiler_->decode(end, image_, session_.object());
  if (end.is_overflow) {
    pending_.overflows += burst_.has_overflow ? 0 : 1;
    burst_.has_overflow = true;
  } else if (result != cupti::kSuccess) {
    is_image_empty_ = false;
    fail(result, "cuptiPmSamplingDecodeData");
    return 0;
  }
  const cupti::Result info_result = profiler_->image_info(info, image_);
  is_image_empty_ = info_result == cupti::kSuccess && info.num_populated == 0;
  if (info_result != cupti::kSuccess) fail(info_result, "cuptiPmSamplingGetCounterDataInfo");
  const bool is_full = end.reason == cupti::kDecodeCounterDataFull || info.num_populated >= times_.size();
  if (is_full) ++pending_.full_images;
  return std::min(info.num_completed, times_.size());
}

// Costs as much as writing all of the image.
bool PmDecoder::empty_image() noexcept {
  const cupti::Result result = profiler_->initialize_image(image_, session_.object());
  is_image_empty_ = result == cupti::kSuccess;
  if (!is_image_empty_) fail(result, "cuptiPmSamplingCounterDataImageInitialize");
  return is_image_empty_;
}

// A sample whose times CUPTI does not tell gets none, and is not recorded.
void PmDecoder::read_times(size_t num_samples) noexcept {
  for (size_t index = 0; index < num_samples; ++index) {
    times_[index] = {};
    const cupti::Result result = profiler_->sample_times(times_[index], session_.object(), image_, index);
    if (result != cupti::kSuccess) note_failure(result, "cuptiPmSamplingCounterDataGetSampleInfo");
  }
}

void PmDecoder::take(size_t num_samples) noexcept {
  if (!is_full()) {
    evaluator_.evaluate(image_, num_samples);
    pending_.evaluate_ns = evaluator_.cpu_ns();
    if (evaluator_.failure() != cupti::kSuccess) {
      note_failure(evaluator_.failure(), "cuptiProfilerHostEvaluateToGpuValues");
    }
  }
  records_.clear();
  for (size_t index = 0; index < num_samples; ++index) {
    if (is_wanted(times_[index]) && !is_full()) record(times_[index], evaluator_.values(index));
  }
  if (spool_ != nullptr) spool_->append(RecordKind::kCounter, records_);
}

bool PmDecoder::is_wanted(const PmSampleTimes& times) noexcept {
  if (times.end_ns <= times.start_ns || times.end_ns <= burst_.last_end_ns.value_or(0)) {
    ++pending_.decode_failures;
    return false;
  }
  if (burst_.is_first_due) {  // what is left of the burst before does not count as the first
    burst_.is_first_due = times.end_ns < burst_.start_ns - kClockToleranceNs;
    if (!burst_.is_first_due) burst_.last_end_ns = times.end_ns;  // a hole may follow it, too
    ++pending_.dropped_first;
    return false;
  }
  const int64_t length_ns = times.end_ns - times.start_ns;
  if (!is_by_time()) burst_.interval_ns = length_ns;  // cycles, of a clock that may be slow
  const std::optional<int64_t> known_until_ns = std::exchange(burst_.last_end_ns, times.end_ns);
  const bool is_long = static_cast<double>(length_ns) > kLongest * static_cast<double>(burst_.interval_ns);
  if (is_long) ++pending_.dropped_long;
  if (known_until_ns) {
    const int64_t hole_ns = (is_long ? times.end_ns : times.start_ns) - *known_until_ns;
    pending_.lost_samples += intervals_in(hole_ns, burst_.interval_ns);
  }
  return !is_long;
}

void PmDecoder::record(const PmSampleTimes& times, const double* values) {
  const size_t num_before = records_.size();
  for (size_t i = 0; i < settings_.metrics.size(); ++i) {
    const PmMetric& metric = settings_.metrics[i];
    if (!std::isfinite(values[i])) continue;
    records_.push_back(
        {settings_.device, metric.quantity, times.start_ns, times.end_ns, values[i] * metric.factor});
  }
  const size_t num_values = records_.size() - num_before;
  if (num_values < settings_.metrics.size()) ++pending_.evaluate_failures;
  if (num_values == 0) return;
  ++pending_.samples;
  pending_.sampled_ns += static_cast<uint64_t>(times.end_ns - times.start_ns);
  ++num_recorded_;
}

void PmDecoder::fail(cupti::Result result, const char* action) noexcept {
  ++pending_.decode_failures;
  note_failure(result, action);
}

void PmDecoder::note_failure(cupti::Result result, const char* action) noexcept {
  try {
    note_error(std::string(action) + " failed with " + profiler_->result_name(result));
  } catch (const std::exception&) {  // no memory for a sentence; the counts tell
  }
}

void PmDecoder::note_error(const std::string& error) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  try {
    if (error_.empty()) error_ = error;
  } catch (const std::exception&) {
    error_ = "out of memory";  // fits the small-string buffer
  }
}

void PmDecoder::publish() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  counts_ = pending_;
}

PmCounts PmDecoder::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

std::string PmDecoder::error() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return error_;
}

}  // namespace qmeter
