#include "collect/pm_pace.h"

#include <algorithm>

namespace qmeter {
namespace {

constexpr double kMetricCostNs = 12'000;           // CPU time of a sample; H200, CUPTI 13.0: 8 to 13 us
constexpr double kMostCost = 0.25;                 // of an interval, to decode while sampling
constexpr int64_t kMinContinuousNs = 500'000;      // polls 32 ms apart: a thread may wake up 90 ms late
constexpr uint32_t kContinuousImageSamples = 256;  // 10 MB with eight metrics, written anew at each poll
constexpr int64_t kMostPollNs = 250'000'000;
constexpr uint64_t kMeasuredSamples = 64;  // from which on measured cost counts
constexpr double kBurstFill = 0.8;         // of an image

}  // namespace

PmPace::PmPace(const PmPaceSettings& settings) noexcept
    : settings_(settings),
      is_continuous_(keeps_up(kMetricCostNs * static_cast<double>(settings.num_metrics))),
      image_samples_(is_continuous_ ? std::min(settings.image_samples, kContinuousImageSamples)
                                    : settings.image_samples) {}

bool PmPace::keeps_up(double cost_ns) const noexcept {
  const double most = std::min(kMostCost, settings_.decode_budget);
  return settings_.interval_ns >= kMinContinuousNs &&
         cost_ns <= most * static_cast<double>(settings_.interval_ns);
}

int64_t PmPace::poll_ns() const noexcept {
  return std::min(kMostPollNs, std::max<int64_t>(1, image_samples_ / 4) * settings_.interval_ns);
}

int64_t PmPace::burst_ns() const noexcept {
  const double num_samples = std::max(1.0, kBurstFill * image_samples_);
  return static_cast<int64_t>(num_samples * static_cast<double>(settings_.interval_ns));
}

void PmPace::look_at(const PmCounts& before, const PmCounts& now) noexcept {
  const uint64_t num_samples = now.samples - before.samples;
  const auto cost_ns = static_cast<double>(spent_ns(now) - spent_ns(before));
  const bool is_slow =
      num_samples >= kMeasuredSamples && !keeps_up(cost_ns / static_cast<double>(num_samples));
  if (is_slow || now.full_images > before.full_images) is_continuous_ = false;
}

int64_t PmPace::time_worth_ns(uint64_t cpu_ns) const noexcept {
  const double time_ns = static_cast<double>(cpu_ns) / settings_.decode_budget;
  return settings_.decode_budget > 0 && time_ns < kForeverNs ? static_cast<int64_t>(time_ns) : kForeverNs;
}

}  // namespace qmeter
