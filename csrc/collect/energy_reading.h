// The one interface of all that the energy sampler reads: a quantity of a device, on a schedule of its own.
// Times are nanoseconds of CLOCK_MONOTONIC.
#pragma once

#include <cstdint>
#include <limits>

namespace qmeter {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

class EnergyReading {
 public:
  virtual ~EnergyReading() = default;

  // Sampling begins. Returns the first deadline.
  virtual int64_t start(int64_t now_ns) = 0;

  // Read once, at or after `deadline_ns`. Returns the next deadline, kNever if there is none.
  virtual int64_t read(int64_t deadline_ns) = 0;

  // Sampling ends. Returns the deadline of the next read if something is still wanted; `read` then tells when
  // to stop.
  virtual int64_t finish(int64_t) { return kNever; }

  // Nothing is read any more: take what is left.
  virtual void drain() {}
};

}  // namespace qmeter
