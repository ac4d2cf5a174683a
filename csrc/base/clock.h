// Clocks in nanoseconds. CUPTI stamps with CLOCK_REALTIME by default, so records carry that; deadlines use
// CLOCK_MONOTONIC, which no administrator can step.
#pragma once

#include <cstdint>
#include <ctime>

namespace qmeter {

constexpr int64_t kNsPerSecond = 1'000'000'000;

inline int64_t clock_ns(clockid_t id) noexcept {
  timespec now{};
  clock_gettime(id, &now);
  return static_cast<int64_t>(now.tv_sec) * kNsPerSecond + now.tv_nsec;
}

inline int64_t realtime_ns() noexcept { return clock_ns(CLOCK_REALTIME); }
inline int64_t monotonic_ns() noexcept { return clock_ns(CLOCK_MONOTONIC); }

// CPU time of the calling thread.
inline int64_t thread_cpu_ns() noexcept { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

struct ClockPair {
  int64_t realtime_ns;
  int64_t monotonic_ns;
};

// Both clocks at one moment: the tightest of a few readings, realtime bracketed by monotonic.
ClockPair read_clock_pair() noexcept;

}  // namespace qmeter
