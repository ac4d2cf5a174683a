// Where readings go: into the spool as records, and into a small state that any thread may ask for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "collect/energy_edge_tracker.h"
#include "collect/energy_stats.h"
#include "records/records.h"
#include "records/spool.h"

namespace qmeter {

// Newest readings of a device; empty where there is none.
struct LatestReadings {
  int16_t index = 0;
  std::optional<int64_t> power_mw;
  std::optional<int64_t> energy_uj;
  std::optional<int64_t> sm_mhz;
  std::optional<int64_t> temperature_c;
};

class EnergyJournal {
 public:
  // `spool` may be null: then nothing is recorded.
  EnergyJournal(std::shared_ptr<Spool> spool, size_t num_devices);

  // For the sampler's thread. Edges come in CLOCK_MONOTONIC and are recorded in CLOCK_REALTIME; all other
  // times are CLOCK_REALTIME.
  void add_edge(int16_t device, EnergySource source, const CounterEdge& edge, int64_t energy_uj);

  // Recorded if it differs from the last value of that source, or a second after it: 20 records a second at
  // most at the default period, one where nothing changes.
  void add_power(int16_t device, EnergySource source, int64_t time_ns, int64_t power_mw);

  // A sample of the driver's ring. All are recorded: their stamps are the driver's.
  void add_power_sample(int16_t device, int64_t time_ns, int64_t power_mw);

  // Recorded as power is.
  void add_clocks(const ClockRecord& clocks);

  void add_throttle(const ThrottleRecord& throttle);

  void add_clock_pair();
  void add_stats();

  // A reading begins that was due at `deadline_ns` (CLOCK_MONOTONIC) and is due every `period_ns`: counts its
  // delay, and the deadlines that passed unserved as missed. Returns the next deadline, which a late reading
  // does not shift.
  int64_t count_sample(int64_t deadline_ns, int64_t period_ns);

  void count_missed_samples(uint64_t count);
  void count_counter_call();
  void count_counter_reset();
  void count_missed_edges(uint64_t count);
  void count_error(const std::string& text);
  void count_time(int64_t cpu_ns, int64_t blocked_ns);
  void mark_lost(int16_t device);
  bool is_lost(int16_t device) const;

  // For any thread.
  std::vector<LatestReadings> latest() const;
  EnergySamplerStats stats() const;

  // Mean power of a device since construction or the last `mark_idle`: from counter edge to counter edge,
  // else of the ring's samples, else of the instant or average power read. Empty if there is nothing yet, or
  // no such device.
  std::optional<double> idle_power_mw(int16_t device) const;
  void mark_idle();

 private:
  static constexpr size_t kNumSources = 6;

  struct Mean {
    double sum = 0;
    uint64_t count = 0;
  };

  struct EdgePoint {
    double time_ns;
    int64_t energy_uj;
  };

  struct Recorded {
    int64_t time_ns = 0;
    int64_t value = 0;
  };

  struct DeviceState {
    bool is_lost = false;
    std::optional<EdgePoint> last_edge;
    std::optional<EdgePoint> first_idle_edge;
    std::array<Mean, kNumSources> idle_power;  // by EnergySource
    std::array<std::optional<int64_t>, kNumSources> power_mw;
    std::array<std::optional<Recorded>, kNumSources> recorded;
    std::optional<ClockRecord> clocks;
    std::optional<ClockRecord> recorded_clocks;
  };

  DeviceState& note_power(int16_t device, EnergySource source, int64_t time_ns, int64_t power_mw);
  void record_power(int16_t device, EnergySource source, int64_t time_ns, int64_t power_mw);

  const std::shared_ptr<Spool> spool_;
  mutable std::mutex mutex_;
  std::vector<DeviceState> devices_;
  int64_t idle_start_ns_ = 0;  // CLOCK_REALTIME of the last `mark_idle`
  EnergySamplerStats stats_;   // its percentiles are filled in by stats()
  JitterHistory jitter_;
};

}  // namespace qmeter
