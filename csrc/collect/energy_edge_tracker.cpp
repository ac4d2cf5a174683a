#include "collect/energy_edge_tracker.h"

#include <algorithm>
#include <cmath>

namespace qmeter {
namespace {

constexpr int kEdgesToLearn = 3;
constexpr int kMissesToRelearn = 3;

// Between two reads of a watch: finer is lost in the milliseconds of the call itself.
constexpr int64_t kMinGapNs = 500'000;

// While learning, gaps grow with the wait, so that a tick of 1 s costs no more reads than one of 100 ms.
constexpr double kGapShare = 1.0 / 16;

constexpr double kMinMarginNs = 1'000'000;  // ticks are themselves a millisecond or so early or late
constexpr double kMaxErrorShare =
    1.0 / 8;  // never skip so many ticks that the prediction is off by more of a period
constexpr int64_t kMaxBaselineTicks =
    256;  // 26 s of 100 ms ticks: long enough for 0.01 %, short enough for drift

int64_t rounded(double ns) noexcept { return static_cast<int64_t>(std::llround(ns)); }

}  // namespace

std::optional<CounterEdge> EnergyEdgeTracker::observe(const CounterRead& read) noexcept {
  const std::optional<CounterEdge> edge = watch(read);
  if (edge) {
    ++num_edges_;
    const double middle_ns =
        static_cast<double>(edge->low_ns) + static_cast<double>(edge->high_ns - edge->low_ns) / 2;
    const double half_width_ns = static_cast<double>(edge->high_ns - edge->low_ns) / 2;
    if (is_locked_) {
      follow(middle_ns, half_width_ns);
    } else {
      learn(middle_ns, half_width_ns);
    }
  } else if (is_locked_ && read.after_ns > watch_end_ns_) {
    miss();
  }
  return edge;
}

std::optional<CounterEdge> EnergyEdgeTracker::watch(const CounterRead& read) noexcept {
  const std::optional<CounterRead> before = last_;
  last_ = read;
  if (!before) watch_start_ns_ = read.after_ns;
  int64_t gap_ns = kMinGapNs;
  if (!is_locked_) {
    const auto waited = static_cast<double>(read.after_ns - watch_start_ns_);
    gap_ns = std::clamp(rounded(waited * kGapShare), kMinGapNs, std::max(edge_period_ns_, kMinGapNs));
  }
  next_read_ns_ = read.after_ns + gap_ns;
  if (!before || before->value == read.value) return std::nullopt;
  watch_start_ns_ = read.after_ns;
  return CounterEdge{before->before_ns, read.after_ns};
}

void EnergyEdgeTracker::learn(double middle_ns, double half_width_ns) noexcept {
  if (num_learnt_++ == 0) {
    baseline_ns_ = middle_ns;
    baseline_half_width_ns_ = half_width_ns;
    baseline_ticks_ = 0;
    return;
  }
  ++baseline_ticks_;
  phase_ns_ = middle_ns;
  half_width_ns_ = half_width_ns;
  period_ns_ = (middle_ns - baseline_ns_) / static_cast<double>(baseline_ticks_);
  if (num_learnt_ < kEdgesToLearn) return;
  is_locked_ = true;
  spread_ns_ = 0;
  num_misses_in_a_row_ = 0;
  aim_at_wanted();
}

void EnergyEdgeTracker::follow(double middle_ns, double half_width_ns) noexcept {
  const double predicted_ns = phase_ns_ + static_cast<double>(aimed_ticks_) * period_ns_;
  const double residual_ns = middle_ns - predicted_ns;
  num_misses_in_a_row_ = 0;
  spread_ns_ += (std::abs(residual_ns) - spread_ns_) / 4;
  phase_ns_ = predicted_ns + residual_ns / 2;
  half_width_ns_ = half_width_ns;
  baseline_ticks_ += aimed_ticks_;
  period_ns_ = (middle_ns - baseline_ns_) / static_cast<double>(baseline_ticks_);
  if (baseline_ticks_ > kMaxBaselineTicks) move_baseline(middle_ns);
  aim_at_wanted();
}

void EnergyEdgeTracker::miss() noexcept {
  ++num_misses_;
  if (++num_misses_in_a_row_ >= kMissesToRelearn) {
    relearn();
    return;
  }
  spread_ns_ += period_ns_ / 16;  // look wider, at the next tick
  const double since_phase_ns = static_cast<double>(last_->after_ns) - phase_ns_;
  aim(static_cast<int64_t>(std::floor(since_phase_ns / period_ns_)) + 1);
}

void EnergyEdgeTracker::relearn() noexcept {
  is_locked_ = false;
  num_learnt_ = 0;
  watch_start_ns_ = last_->after_ns;
}

// Forget half of the baseline: the edge half way is where the period says.
void EnergyEdgeTracker::move_baseline(double middle_ns) noexcept {
  baseline_ticks_ = kMaxBaselineTicks / 2;
  baseline_ns_ = middle_ns - static_cast<double>(baseline_ticks_) * period_ns_;
  baseline_half_width_ns_ = half_width_ns_;
}

double EnergyEdgeTracker::period_error_ns() const noexcept {
  return (baseline_half_width_ns_ + half_width_ns_) / static_cast<double>(baseline_ticks_);
}

void EnergyEdgeTracker::aim(int64_t num_ticks) noexcept {
  aimed_ticks_ = num_ticks;
  const auto ticks = static_cast<double>(num_ticks);
  const double predicted_ns = phase_ns_ + ticks * period_ns_;
  const double doubt_ns = half_width_ns_ + ticks * period_error_ns() + 2 * spread_ns_ + kMinMarginNs;
  const double margin_ns = std::min(doubt_ns, period_ns_ / 2);
  next_read_ns_ = rounded(predicted_ns - margin_ns);
  watch_end_ns_ = rounded(predicted_ns + margin_ns);
  last_.reset();
}

void EnergyEdgeTracker::aim_at_wanted() noexcept {
  const double wanted = std::max(1.0, std::round(static_cast<double>(edge_period_ns_) / period_ns_));
  const double safe =
      std::max(1.0, std::floor(kMaxErrorShare * period_ns_ / std::max(period_error_ns(), 1.0)));
  aim(static_cast<int64_t>(std::min(wanted, safe)));
}

void EnergyEdgeTracker::seek_last(int64_t now_ns) noexcept {
  if (!is_locked_ || last_) return;  // it is being watched already
  const double since_phase_ns = static_cast<double>(now_ns) - phase_ns_;
  aim(std::max<int64_t>(1, static_cast<int64_t>(std::floor(since_phase_ns / period_ns_)) + 1));
}

}  // namespace qmeter
