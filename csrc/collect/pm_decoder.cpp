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
  const cupti::Result result = profiler_->initialize_image(image_, session_.object());
  if (result == cupti::kSuccess) return;
  throw Error(ErrorCode::kUnsupported,
              "cuptiPmSamplingCounterDataImageInitialize failed with " + profiler_->result_name(result));
}

void PmDecoder::begin_burst(uint64_t max_samples) noexcept {
  burst_ = Burst{};
  burst_.max_samples = max_samples;
}

size_t PmDecoder::decode() noexcept {
  const int64_t begin_ns = thread_cpu_ns();
  size_t first = 0;
  size_t last = 0;
  const bool is_filled = fill_image();
  if (is_filled) {
    first = is_other_image() ? 0 : num_taken_;
    last = std::min(info_.num_completed, times_.size());
    read_times(first, last);
  }
  pending_.decode_ns += static_cast<uint64_t>(thread_cpu_ns() - begin_ns);
  if (last > first) take(first, last);
  num_taken_ = last;
  // Samples gather in the image until it is full, since emptying it costs as much as writing all of it.
  if (!is_filled || stop_reason_ == cupti::kDecodeCounterDataFull || info_.num_populated >= times_.size()) {
    reset_image();
  }
  publish();
  return last - first;
}

void PmDecoder::end_burst(int64_t start_ns, int64_t stop_ns) noexcept {
  if (!burst_.is_complete) {
    const int64_t known_until_ns = burst_.last_end_ns.value_or(start_ns);
    pending_.lost_samples += intervals_in(stop_ns - known_until_ns, settings_.interval_ns);
  }
  publish();
}

bool PmDecoder::fill_image() noexcept {
  PmDecodeEnd end;
  const cupti::Result result = profiler_->decode(end, image_, session_.object());
  if (end.is_overflow) {
    pending_.overflows += burst_.has_overflow ? 0 : 1;
    burst_.has_overflow = true;
    burst_.is_complete = false;
  } else if (result != cupti::kSuccess) {
    fail(result, "cuptiPmSamplingDecodeData");
    return false;
  }
  stop_reason_ = end.reason;
  const cupti::Result info_result = profiler_->image_info(info_, image_);
  if (info_result != cupti::kSuccess) fail(info_result, "cuptiPmSamplingGetCounterDataInfo");
  return info_result == cupti::kSuccess;
}

// Whether decoding began the image anew instead of adding to it. CUPTI leaves that open.
bool PmDecoder::is_other_image() noexcept {
  PmSampleTimes times;
  if (info_.num_completed == 0) return true;
  if (profiler_->sample_times(times, session_.object(), image_, 0) != cupti::kSuccess) return false;
  const bool is_same = image_start_ns_ == times.start_ns && info_.num_completed >= num_taken_;
  image_start_ns_ = times.start_ns;
  return !is_same;
}

// A sample whose times CUPTI does not tell gets none, and is not recorded.
void PmDecoder::read_times(size_t first, size_t last) noexcept {
  for (size_t index = first; index < last; ++index) {
    times_[index] = {};
    const cupti::Result result = profiler_->sample_times(times_[index], session_.object(), image_, index);
    if (result != cupti::kSuccess) note_failure(result, "cuptiPmSamplingCounterDataGetSampleInfo");
  }
}

void PmDecoder::take(size_t first, size_t last) noexcept {
  if (is_full()) return;
  evaluator_.evaluate(image_, first, last);
  pending_.evaluate_ns = evaluator_.cpu_ns();
  if (evaluator_.failure() != cupti::kSuccess) {
    note_failure(evaluator_.failure(), "cuptiProfilerHostEvaluateToGpuValues");
  }
  records_.clear();
  for (size_t index = first; index < last; ++index) {
    if (is_wanted(times_[index])) record(times_[index], evaluator_.values(index - first));
  }
  if (spool_ != nullptr) spool_->append(RecordKind::kCounter, records_);
}

bool PmDecoder::is_wanted(const PmSampleTimes& times) noexcept {
  if (burst_.is_first_due) {
    burst_.is_first_due = false;
    ++pending_.dropped_first;
    return false;
  }
  if (times.end_ns <= times.start_ns || times.end_ns <= burst_.last_end_ns.value_or(0)) {
    ++pending_.decode_failures;
    return false;
  }
  if (burst_.last_end_ns) {
    pending_.lost_samples +=
        intervals_in(times.start_ns - *burst_.last_end_ns, times.end_ns - times.start_ns);
  }
  burst_.last_end_ns = times.end_ns;
  return !is_full();
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
  ++burst_.num_recorded;
}

void PmDecoder::reset_image() noexcept {
  const int64_t begin_ns = thread_cpu_ns();
  const cupti::Result result = profiler_->initialize_image(image_, session_.object());
  if (result != cupti::kSuccess) note_failure(result, "cuptiPmSamplingCounterDataImageInitialize");
  num_taken_ = 0;
  image_start_ns_.reset();
  pending_.decode_ns += static_cast<uint64_t>(thread_cpu_ns() - begin_ns);
}

void PmDecoder::fail(cupti::Result result, const char* action) noexcept {
  ++pending_.decode_failures;
  burst_.is_complete = false;
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
