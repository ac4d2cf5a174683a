#include <algorithm>

#include "base/clock.h"
#include "collect/energy_counter.h"
#include "collect/energy_edge_tracker.h"
#include "collect/energy_nvml_reading.h"

namespace qmeter {
namespace {

constexpr int64_t kMicroJoulesPerMilliJoule = 1000;
constexpr int64_t kRetryNs = 100'000'000;    // after a call that failed
constexpr int64_t kStaggerNs = 100'000'000;  // between the counters of two GPUs: a tick on data-centre parts
constexpr int64_t kUnknownTickNs = 100'000'000;  // for the last edge, if the counter's period is not learnt

// The energy counter: slow to read, so only around its ticks, and less often where a call burns CPU time.
class TotalEnergyReading final : public NvmlReading {
 public:
  TotalEnergyReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal,
                     const NvmlReadingPeriods& periods)
      : NvmlReading(nvml, device, journal),
        tracker_(periods.edge_ns),
        edge_period_ns_(periods.edge_ns),
        cpu_share_(periods.counter_cpu_share) {}

  int64_t start(int64_t now_ns) override {
    uint64_t energy_mj = 0;
    if (check(nvml_.total_energy(handle_, energy_mj), "nvmlDeviceGetTotalEnergyConsumption")) {
      counter_.update(energy_mj, now_ns);
    }
    return now_ns + index_ * kStaggerNs;
  }

  int64_t read(int64_t) override {
    if (journal_.is_lost(index_)) return kNever;
    const int64_t start_cpu_ns = thread_cpu_ns();
    CounterRead read{monotonic_ns(), 0, 0};
    const nvml::Return result = nvml_.total_energy(handle_, read.value);
    read.after_ns = monotonic_ns();
    cpu_per_edge_ns_ += thread_cpu_ns() - start_cpu_ns;
    journal_.count_counter_call();
    if (!check(result, "nvmlDeviceGetTotalEnergyConsumption")) {
      return journal_.is_lost(index_) || is_over(read.after_ns + kRetryNs) ? kNever
                                                                           : read.after_ns + kRetryNs;
    }
    if (counter_.update(read.value, read.after_ns)) journal_.count_counter_reset();
    const bool is_edge = follow(read);
    return (is_edge && is_finishing_) || is_over(tracker_.next_read_ns()) ? kNever : tracker_.next_read_ns();
  }

  int64_t finish(int64_t now_ns) override {
    tracker_.seek_last(now_ns);
    is_finishing_ = true;
    const int64_t tick_ns = tracker_.period_ns() > 0 ? tracker_.period_ns() : kUnknownTickNs;
    end_ns_ = now_ns + tick_ns + tick_ns / 2;
    return journal_.is_lost(index_) ? kNever : std::max(now_ns, tracker_.next_read_ns());
  }

 private:
  bool is_over(int64_t time_ns) const noexcept { return is_finishing_ && time_ns > end_ns_; }

  bool follow(const CounterRead& read) {
    const auto affordable_ns = static_cast<int64_t>(static_cast<double>(cpu_per_edge_ns_) / cpu_share_);
    tracker_.want_edges_every(std::max(edge_period_ns_, affordable_ns));
    const uint64_t num_misses = tracker_.num_misses();
    const std::optional<CounterEdge> edge = tracker_.observe(read);
    if (edge) cpu_per_edge_ns_ = 0;
    if (tracker_.num_misses() > num_misses) journal_.count_missed_edges(tracker_.num_misses() - num_misses);
    if (edge) journal_.add_edge(index_, EnergySource::kNvmlTotalEnergy, *edge, counter_.energy_uj());
    return edge.has_value();
  }

  EnergyCounter counter_{kMicroJoulesPerMilliJoule, 0};
  EnergyEdgeTracker tracker_;
  const int64_t edge_period_ns_;
  const double cpu_share_;
  int64_t cpu_per_edge_ns_ = 0;  // of the calls since the last edge
  bool is_finishing_ = false;
  int64_t end_ns_ = 0;
};

}  // namespace

std::unique_ptr<EnergyReading> make_total_energy_reading(Nvml& nvml, const NvmlEnergyDevice& device,
                                                         EnergyJournal& journal,
                                                         const NvmlReadingPeriods& periods) {
  return std::make_unique<TotalEnergyReading>(nvml, device, journal, periods);
}

}  // namespace qmeter
