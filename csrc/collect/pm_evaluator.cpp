#include "collect/pm_evaluator.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <thread>

#include "base/clock.h"
#include "base/thread.h"

namespace qmeter {
namespace {

constexpr size_t kSamplesWorthAThread = 64;  // some milliseconds of evaluation

}  // namespace

PmEvaluator::PmEvaluator(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
                         const CuptiImage& availability, const MetricNames& metrics,
                         const PmEvaluatorLimits& limits)
    : profiler_(profiler),
      metrics_(metrics),
      lanes_(std::max<size_t>(1, limits.num_threads)),
      values_(limits.num_samples * metrics.size()) {
  for (const std::string& metric : metrics_) names_.push_back(metric.c_str());
  for (Lane& lane : lanes_) {
    lane.host = std::make_unique<MetricHost>(profiler, chip, availability);
    lane.host->add(metrics_);
  }
  threads_.reserve(lanes_.size());
}

void PmEvaluator::evaluate(const CuptiImage& image, size_t num_samples) noexcept {
  const size_t num_parts = std::clamp<size_t>(num_samples / kSamplesWorthAThread, 1, lanes_.size());
  size_t begin = 0;
  for (size_t part = 0; part + 1 < num_parts; ++part) {
    const size_t end = num_samples * (part + 1) / num_parts;
    try {
      threads_.push_back(start_thread("qmeter-evaluate", [this, &image, part, begin, end] {
        evaluate_part(lanes_[part], image, begin, end);
      }));
    } catch (const std::exception&) {  // no more threads to be had: this one does the rest
      break;
    }
    begin = end;
  }
  evaluate_part(lanes_.back(), image, begin, num_samples);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (Lane& lane : lanes_) {
    cpu_ns_ += lane.cpu_ns;
    lane.cpu_ns = 0;
    if (failure_ == cupti::kSuccess) failure_ = lane.failure;
  }
}

void PmEvaluator::evaluate_part(Lane& lane, const CuptiImage& image, size_t begin, size_t end) noexcept {
  const int64_t begin_ns = thread_cpu_ns();
  for (size_t sample = begin; sample < end; ++sample) {
    double* values = &values_[sample * names_.size()];
    const cupti::Result result = profiler_->evaluate(values, lane.host->object(), image, sample, names_);
    if (result == cupti::kSuccess) continue;
    if (lane.failure == cupti::kSuccess) lane.failure = result;
    std::fill_n(values, names_.size(), std::numeric_limits<double>::quiet_NaN());
  }
  lane.cpu_ns += static_cast<uint64_t>(thread_cpu_ns() - begin_ns);
}

}  // namespace qmeter
