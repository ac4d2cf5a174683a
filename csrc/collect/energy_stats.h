// How well the energy sampler did its work.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace qmeter {

struct EnergySamplerStats {
  uint64_t samples = 0;         // readings on a period: power, clocks, the ring
  uint64_t missed_samples = 0;  // deadlines that passed unserved, and samples that the driver's ring lost
  int64_t cpu_ns = 0;           // CPU time of the sampler's thread
  int64_t blocked_ns = 0;       // wall time in vendor calls without CPU time
  int64_t jitter_p50_ns = 0;    // start of a reading after its deadline
  int64_t jitter_p99_ns = 0;
  int64_t jitter_max_ns = 0;
  uint64_t counter_calls = 0;   // of energy counters that are slow to read
  uint64_t counter_resets = 0;  // energy counters seen to go back
  uint64_t edges = 0;
  uint64_t missed_edges = 0;  // not found where they were predicted
  std::map<std::string, uint64_t> errors;
  std::vector<int16_t> devices_lost;
};

// {"name": "energy_sampler", …}, with the fields of the struct.
std::string to_json(const EnergySamplerStats& stats);

// The last few thousand delays, for percentiles, and the largest of all.
class JitterHistory {
 public:
  void add(int64_t delay_ns);

  // Delay that a share `quantile` of those kept does not exceed; 0 if there are none.
  int64_t quantile(double quantile) const;

  int64_t max_ns() const noexcept { return max_ns_; }

 private:
  std::vector<int64_t> delays_;
  size_t next_ = 0;
  int64_t max_ns_ = 0;
};

}  // namespace qmeter
