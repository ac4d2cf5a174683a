#include <cstdlib>
#include <vector>

#include "base/clock.h"
#include "collect/energy_nvml_reading.h"

namespace qmeter {
namespace {

constexpr int64_t kRingPeriodNs = kNsPerSecond;           // the ring of an H200 holds 2.4 s
constexpr int64_t kStampToleranceNs = 10 * kNsPerSecond;  // a stamp this near to a clock is of that clock

// The driver's ring of power samples, with the driver's own stamps.
class PowerSamplesReading final : public PeriodicNvmlReading {
 public:
  PowerSamplesReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal)
      : PeriodicNvmlReading(nvml, device, journal, kRingPeriodNs) {}

  // What is older than the sampler is skipped.
  int64_t start(int64_t now_ns) override {
    if (fetch() && !samples_.empty()) last_seen_us_ = samples_.back().time_us;
    return now_ns + kRingPeriodNs;
  }

  void drain() override {
    if (!journal_.is_lost(index_)) sample();
  }

 protected:
  void sample() override {
    if (!fetch() || samples_.empty()) return;
    count_lost();
    const int64_t to_realtime_ns = offset_of_stamps(samples_.back().time_us * 1000);
    for (const NvmlPowerSample& sample : samples_) {
      journal_.add_power_sample(index_, sample.time_us * 1000 + to_realtime_ns, sample.power_mw);
    }
    last_seen_us_ = samples_.back().time_us;
  }

 private:
  bool fetch() {
    return check(nvml_.power_samples(handle_, last_seen_us_, samples_), "nvmlDeviceGetSamples");
  }

  // A gap before the oldest new sample is what the ring dropped before we came.
  void count_lost() {
    if (last_seen_us_ == 0 || samples_.size() < 2) return;
    const int64_t spacing_us =
        (samples_.back().time_us - samples_.front().time_us) / static_cast<int64_t>(samples_.size() - 1);
    const int64_t gap_us = samples_.front().time_us - last_seen_us_;
    if (spacing_us > 0 && gap_us > 2 * spacing_us) {
      journal_.count_missed_samples(static_cast<uint64_t>(gap_us / spacing_us - 1));
    }
  }

  // What to add to the driver's stamps. Drivers known to us stamp with CLOCK_REALTIME; another clock is told
  // by the newest stamp, which is near it. A clock that we do not know is taken to say "now" for the newest.
  static int64_t offset_of_stamps(int64_t newest_ns) noexcept {
    const int64_t now_ns = realtime_ns();
    if (std::llabs(now_ns - newest_ns) < kStampToleranceNs) return 0;
    for (const clockid_t clock : {CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
      const int64_t clock_now_ns = clock_ns(clock);
      if (std::llabs(clock_now_ns - newest_ns) < kStampToleranceNs) return now_ns - clock_now_ns;
    }
    return now_ns - newest_ns;
  }

  std::vector<NvmlPowerSample> samples_;
  int64_t last_seen_us_ = 0;
};

}  // namespace

std::unique_ptr<EnergyReading> make_power_samples_reading(Nvml& nvml, const NvmlEnergyDevice& device,
                                                          EnergyJournal& journal) {
  return std::make_unique<PowerSamplesReading>(nvml, device, journal);
}

}  // namespace qmeter
