#include <algorithm>

#include "base/clock.h"
#include "collect/energy_nvml_reading.h"

namespace qmeter {
namespace {

// Of the sampler's time: a call of 0.1 ms is made ten times a second.
constexpr double kMaxShare = 0.001;

constexpr int64_t kMaxPeriodNs = kNsPerSecond;  // however slow a call is: windows of energy are as long

// A multiple of `clock_period_ns`, as long as a call is slow.
int64_t throttle_period_ns(int64_t call_cost_ns, int64_t clock_period_ns) noexcept {
  const int64_t affordable_ns =
      std::min(static_cast<int64_t>(static_cast<double>(call_cost_ns) / kMaxShare), kMaxPeriodNs);
  return std::max<int64_t>(1, (affordable_ns + clock_period_ns - 1) / clock_period_ns) * clock_period_ns;
}

// How long clocks have been held down. All readings are recorded: between two of them the rate is unknown.
class ThrottleReading final : public PeriodicNvmlReading {
 public:
  ThrottleReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal, int64_t period_ns)
      : PeriodicNvmlReading(nvml, device, journal, period_ns) {}

 protected:
  void sample() override {
    NvmlThrottleTimes times;
    if (!check(nvml_.throttle_times(handle_, times), "throttle times")) return;
    journal_.add_throttle({index_, realtime_ns(), times.power_ns, times.thermal_ns});
  }
};

}  // namespace

std::unique_ptr<EnergyReading> make_throttle_reading(Nvml& nvml, const NvmlEnergyDevice& device,
                                                     EnergyJournal& journal, int64_t clock_period_ns) {
  const int64_t call_cost_ns = device.find(reading_name::kThrottleTimes)->call_cost_ns;
  return std::make_unique<ThrottleReading>(nvml, device, journal,
                                           throttle_period_ns(call_cost_ns, clock_period_ns));
}

}  // namespace qmeter
