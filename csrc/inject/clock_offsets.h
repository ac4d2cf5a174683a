// How far CUPTI's clock is from CLOCK_REALTIME, which it is meant to be.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "driver/cupti.h"

namespace qmeter {

class ClockOffsets {
 public:
  // Read CUPTI's clock a few times between two readings of CLOCK_REALTIME, and keep the tightest.
  void read(const Cupti& cupti);

  // clock_offset_median_ns, _min_ns and _max_ns, null if there is no reading, and clock_offset_count.
  void add_to(JsonObject& object) const;

 private:
  std::vector<int64_t> recent_ns_;  // a ring: the median is of these, all else of all readings
  uint64_t count_ = 0;
  int64_t min_ns_ = INT64_MAX;
  int64_t max_ns_ = INT64_MIN;
};

}  // namespace qmeter
