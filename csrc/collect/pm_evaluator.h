// Values of metrics from counter data images, on several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "collect/metric_config.h"
#include "driver/cupti_profiler.h"

namespace qmeter {

struct PmEvaluatorLimits {
  size_t num_samples = 2048;  // in one evaluation
  size_t num_threads = 1;     // at most, and at least one
};

class PmEvaluator {
 public:
  // Throws Error as MetricHost does.
  PmEvaluator(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
              const CuptiImage& availability, const MetricNames& metrics, const PmEvaluatorLimits& limits);

  // Evaluate the first `num_samples` of an image that nobody writes meanwhile. Where CUPTI refuses, values
  // are NaN.
  void evaluate(const CuptiImage& image, size_t num_samples) noexcept;

  // Of the last evaluation: one value a metric of a sample.
  const double* values(size_t sample) const noexcept { return &values_[sample * names_.size()]; }

  uint64_t cpu_ns() const noexcept { return cpu_ns_; }         // of all evaluations and threads
  cupti::Result failure() const noexcept { return failure_; }  // the first, if there was any

 private:
  // Each thread has a host object of its own: CUPTI does not promise that one serves several.
  struct Lane {
    std::unique_ptr<MetricHost> host;
    uint64_t cpu_ns = 0;
    cupti::Result failure = cupti::kSuccess;
  };

  void evaluate_part(Lane& lane, const CuptiImage& image, size_t begin, size_t end) noexcept;

  const std::shared_ptr<const CuptiProfiler> profiler_;
  const MetricNames metrics_;
  std::vector<const char*> names_;
  std::vector<Lane> lanes_;
  std::vector<double> values_;
  std::vector<std::thread> threads_;  // only while evaluating
  uint64_t cpu_ns_ = 0;
  cupti::Result failure_ = cupti::kSuccess;
};

}  // namespace qmeter
