// When a PM session is stopped and decoded: whether decoding keeps up with sampling, and what follows.
//
// A decode takes everything out of the hardware buffer, and what does not fit into the image is lost. Where
// decoding keeps up, a small image is filled and emptied again and again while the GPU samples
// ("continuous"). Else the session is stopped before its image would be full, decoded, and started again
// ("bursts").
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "collect/pm_decoder.h"

namespace qmeter {

constexpr int64_t kForeverNs = int64_t{1} << 60;  // 36 years

struct PmPaceSettings {
  int64_t interval_ns = 0;
  uint32_t image_samples = 0;  // at most
  double decode_budget = 1;    // CPU seconds a second
  size_t num_metrics = 0;
};

class PmPace {
 public:
  explicit PmPace(const PmPaceSettings& settings) noexcept;

  uint32_t image_samples() const noexcept { return image_samples_; }

  // May be asked on any thread.
  bool is_continuous() const noexcept { return is_continuous_; }

  // Between two decodes while the GPU samples: a quarter of an image, so that one that is late finds a half.
  int64_t poll_ns() const noexcept;

  // Of a burst.
  int64_t burst_ns() const noexcept;

  // Sampling goes on in bursts from now on if an image was full since `before`, or decoding costs too much.
  void look_at(const PmCounts& before, const PmCounts& now) noexcept;

  // CPU time of decoding.
  static uint64_t spent_ns(const PmCounts& counts) noexcept { return counts.decode_ns + counts.evaluate_ns; }

  // In how much time this much CPU time is within the budget.
  int64_t time_worth_ns(uint64_t cpu_ns) const noexcept;

 private:
  bool keeps_up(double cost_ns) const noexcept;

  const PmPaceSettings settings_;
  std::atomic<bool> is_continuous_;
  const uint32_t image_samples_;
};

}  // namespace qmeter
