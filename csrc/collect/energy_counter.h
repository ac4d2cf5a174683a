// Makes a cumulative energy out of a raw counter that may wrap around or be reset.
#pragma once

#include <cstdint>

namespace qmeter {

class EnergyCounter {
 public:
  // The counter restarts at 0 after `range`; 0 means that it should never wrap. One unit is `unit_uj`
  // microjoules.
  EnergyCounter(int64_t unit_uj, uint64_t range) noexcept : unit_uj_(unit_uj), range_(range) {}

  // Take in a raw value read at `time_ns`. Returns true if the counter went back, by a wrap or a reset.
  bool update(uint64_t raw, int64_t time_ns) noexcept;

  // Energy since the first value.
  int64_t energy_uj() const noexcept { return energy_uj_; }

 private:
  int64_t gone_back_uj(uint64_t raw, int64_t elapsed_ns) const noexcept;

  const int64_t unit_uj_;
  const uint64_t range_;
  bool has_value_ = false;
  uint64_t raw_ = 0;
  int64_t time_ns_ = 0;
  int64_t energy_uj_ = 0;
};

}  // namespace qmeter
