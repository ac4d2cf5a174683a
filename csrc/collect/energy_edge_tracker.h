// Finds the ticks of a counter that changes in steps and is slow to read. It learns the period from a few
// ticks that it watches closely, then predicts, and asks to be read only around the tick it wants.
#pragma once

#include <cstdint>
#include <optional>

namespace qmeter {

// One read of a counter. The value was taken at some moment of [before_ns, after_ns] (CLOCK_MONOTONIC).
struct CounterRead {
  int64_t before_ns;
  int64_t after_ns;
  uint64_t value;
};

// A change of the counter: it happened in [low_ns, high_ns].
struct CounterEdge {
  int64_t low_ns;
  int64_t high_ns;
};

class EnergyEdgeTracker {
 public:
  // Edges are wanted about every `edge_period_ns`; ticks between are skipped.
  explicit EnergyEdgeTracker(int64_t edge_period_ns) noexcept : edge_period_ns_(edge_period_ns) {}

  // Take in a read. An edge is returned if the value changed since the read before and no tick can lie
  // between unseen.
  std::optional<CounterEdge> observe(const CounterRead& read) noexcept;

  // From the next edge on, another pace.
  void want_edges_every(int64_t edge_period_ns) noexcept { edge_period_ns_ = edge_period_ns; }

  // When the counter should be read next.
  int64_t next_read_ns() const noexcept { return next_read_ns_; }

  // From now on only the nearest edge is wanted.
  void seek_last(int64_t now_ns) noexcept;

  // Time between ticks; 0 until it is learnt.
  int64_t period_ns() const noexcept { return is_locked_ ? static_cast<int64_t>(period_ns_) : 0; }

  uint64_t num_edges() const noexcept { return num_edges_; }

  // Predicted edges that were not found where they were expected.
  uint64_t num_misses() const noexcept { return num_misses_; }

 private:
  std::optional<CounterEdge> watch(const CounterRead& read) noexcept;
  void learn(double middle_ns, double half_width_ns) noexcept;
  void follow(double middle_ns, double half_width_ns) noexcept;
  void miss() noexcept;
  void relearn() noexcept;
  void move_baseline(double middle_ns) noexcept;
  double period_error_ns() const noexcept;
  void aim(int64_t num_ticks) noexcept;
  void aim_at_wanted() noexcept;

  int64_t edge_period_ns_;
  int64_t next_read_ns_ = 0;
  std::optional<CounterRead> last_;  // the last read of this watch; empty when a new watch begins
  int64_t watch_start_ns_ = 0;

  bool is_locked_ = false;
  int num_learnt_ = 0;  // edges seen while learning

  // Baseline: `baseline_ticks_` ticks lie between `baseline_ns_` and the last edge; their mean is the period.
  double baseline_ns_ = 0;
  double baseline_half_width_ns_ = 0;
  int64_t baseline_ticks_ = 0;
  double period_ns_ = 0;
  double phase_ns_ = 0;  // the last edge, smoothed
  double half_width_ns_ = 0;
  double spread_ns_ = 0;  // running mean of how far predictions were off

  int64_t aimed_ticks_ = 0;  // ticks from `phase_ns_` to the edge that is aimed at
  int64_t watch_end_ns_ = 0;
  int num_misses_in_a_row_ = 0;
  uint64_t num_edges_ = 0;
  uint64_t num_misses_ = 0;
};

}  // namespace qmeter
