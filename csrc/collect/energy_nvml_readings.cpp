#include <utility>

#include "base/clock.h"
#include "collect/energy_nvml_reading.h"

namespace qmeter {
namespace {

constexpr int64_t kSlowCallNs = 500'000;  // a clock or temperature that costs more is read once a second

// The power fields that work, in one call.
class PowerFieldsReading final : public PeriodicNvmlReading {
 public:
  PowerFieldsReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal, int64_t period_ns)
      : PeriodicNvmlReading(nvml, device, journal, period_ns) {
    using namespace reading_name;
    const auto add_if_ok = [&](const char* name, EnergySource source, unsigned field, unsigned scope) {
      if (device.find(name) == nullptr) return;
      fields_.push_back({field, scope});
      sources_.push_back(source);
    };
    add_if_ok(kPowerInstant, EnergySource::kNvmlPowerInstant, nvml::kPowerInstantField, nvml::kPowerScopeGpu);
    add_if_ok(kPowerAverage, EnergySource::kNvmlPowerAverage, nvml::kPowerAverageField, nvml::kPowerScopeGpu);
    add_if_ok(kPowerMemoryAverage, EnergySource::kNvmlPowerMemoryAverage, nvml::kPowerAverageField,
              nvml::kPowerScopeMemory);
  }

  bool is_empty() const noexcept { return fields_.empty(); }

 protected:
  void sample() override {
    nvml_.power_fields(handle_, fields_);
    const int64_t now_ns = realtime_ns();
    for (size_t i = 0; i < fields_.size(); ++i) {
      if (!check(fields_[i].result, "nvmlDeviceGetFieldValues")) continue;
      journal_.add_power(index_, sources_[i], now_ns, fields_[i].power_mw);
    }
  }

 private:
  std::vector<NvmlPowerField> fields_;
  std::vector<EnergySource> sources_;
};

// For GPUs whose driver has no power fields.
class PowerUsageReading final : public PeriodicNvmlReading {
 public:
  PowerUsageReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal, int64_t period_ns)
      : PeriodicNvmlReading(nvml, device, journal, period_ns),
        source_(device.is_power_usage_instant ? EnergySource::kNvmlPowerInstant
                                              : EnergySource::kNvmlPowerAverage) {}

 protected:
  void sample() override {
    int64_t power_mw = 0;
    if (!check(nvml_.power_usage(handle_, power_mw), "nvmlDeviceGetPowerUsage")) return;
    journal_.add_power(index_, source_, realtime_ns(), power_mw);
  }

 private:
  const EnergySource source_;
};

class ClockReading final : public PeriodicNvmlReading {
 public:
  ClockReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal, int64_t period_ns)
      : PeriodicNvmlReading(nvml, device, journal, period_ns),
        sm_{device.find(reading_name::kSmClock)},
        memory_{device.find(reading_name::kMemoryClock)},
        temperature_{device.find(reading_name::kTemperature)},
        reasons_{device.find(reading_name::kThrottleReasons)} {
    clocks_.device = index_;
    clocks_.sm_mhz = -1;
    clocks_.memory_mhz = -1;
    clocks_.temperature_c = -1;
  }

 protected:
  void sample() override {
    clocks_.time_ns = realtime_ns();
    unsigned number = 0;
    uint64_t reasons = 0;
    if (sm_.is_due() && check(nvml_.clock(handle_, nvml::kClockSm, number), "nvmlDeviceGetClockInfo")) {
      clocks_.sm_mhz = static_cast<int32_t>(number);
    }
    if (memory_.is_due() &&
        check(nvml_.clock(handle_, nvml::kClockMemory, number), "nvmlDeviceGetClockInfo")) {
      clocks_.memory_mhz = static_cast<int32_t>(number);
    }
    if (temperature_.is_due() && check(nvml_.temperature(handle_, number), "nvmlDeviceGetTemperature")) {
      clocks_.temperature_c = static_cast<int16_t>(number);
    }
    if (reasons_.is_due() &&
        check(nvml_.throttle_reasons(handle_, reasons), "nvmlDeviceGetCurrentClocksEventReasons")) {
      clocks_.throttle_reasons = reasons;
    }
    journal_.add_clocks(clocks_);
  }

 private:
  // One of the calls: left out if it does not work, and rarely made if it is slow.
  class Quantity {
   public:
    explicit Quantity(const ReadingInfo* info)
        : is_ok_(info != nullptr), is_slow_(info != nullptr && info->call_cost_ns > kSlowCallNs) {}

    bool is_due() noexcept {
      const int64_t now_ns = monotonic_ns();
      if (!is_ok_ || (is_slow_ && now_ns < next_ns_)) return false;
      next_ns_ = now_ns + kNsPerSecond;
      return true;
    }

   private:
    const bool is_ok_;
    const bool is_slow_;
    int64_t next_ns_ = 0;
  };

  Quantity sm_;
  Quantity memory_;
  Quantity temperature_;
  Quantity reasons_;
  ClockRecord clocks_{};
};

}  // namespace

std::vector<std::unique_ptr<EnergyReading>> make_nvml_readings(Nvml& nvml, const NvmlEnergyDevice& device,
                                                               EnergyJournal& journal,
                                                               const NvmlReadingPeriods& periods) {
  using namespace reading_name;
  std::vector<std::unique_ptr<EnergyReading>> readings;
  if (device.find(kTotalEnergy) != nullptr) {
    readings.push_back(make_total_energy_reading(nvml, device, journal, periods));
  }
  auto fields = std::make_unique<PowerFieldsReading>(nvml, device, journal, periods.power_ns);
  const bool has_gpu_field = device.find(kPowerInstant) != nullptr || device.find(kPowerAverage) != nullptr;
  if (!fields->is_empty()) readings.push_back(std::move(fields));
  if (!has_gpu_field && device.find(kPowerUsage) != nullptr) {
    readings.push_back(std::make_unique<PowerUsageReading>(nvml, device, journal, periods.power_ns));
  }
  if (device.find(kPowerSamples) != nullptr) {
    readings.push_back(make_power_samples_reading(nvml, device, journal));
  }
  if (device.find(kSmClock) != nullptr || device.find(kMemoryClock) != nullptr ||
      device.find(kTemperature) != nullptr || device.find(kThrottleReasons) != nullptr) {
    readings.push_back(std::make_unique<ClockReading>(nvml, device, journal, periods.clock_ns));
  }
  if (device.find(kThrottleTimes) != nullptr) {
    readings.push_back(make_throttle_reading(nvml, device, journal, periods.clock_ns));
  }
  return readings;
}

}  // namespace qmeter
