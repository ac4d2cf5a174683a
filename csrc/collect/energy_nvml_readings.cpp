#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/clock.h"
#include "collect/energy_counter.h"
#include "collect/energy_edge_tracker.h"
#include "collect/energy_nvml.h"

namespace qmeter {
namespace {

constexpr int64_t kMicroJoulesPerMilliJoule = 1000;
constexpr int64_t kRingPeriodNs = kNsPerSecond;  // the ring of an H200 holds 2.4 s
constexpr int64_t kRetryNs = 100'000'000;        // after a call that failed
constexpr int64_t kStaggerNs = 100'000'000;  // between the counters of two GPUs: a tick on data-centre parts
constexpr int64_t kSlowCallNs = 500'000;     // a clock or temperature that costs more is read once a second
constexpr int64_t kUnknownTickNs =
    100'000'000;  // assumed for the last edge if the counter's period is not learnt
constexpr int64_t kStampToleranceNs = 10 * kNsPerSecond;

class NvmlReading : public EnergyReading {
 protected:
  NvmlReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal)
      : nvml_(nvml), handle_(device.handle), index_(device.info.index), journal_(journal) {}

  // Whether a call succeeded. If not, it is counted, and a lost device noted.
  bool check(nvml::Return result, const char* call) {
    if (result == nvml::kSuccess) return true;
    journal_.count_error("GPU " + std::to_string(index_) + ": " + call + ": " + nvml_.error_text(result));
    if (result == nvml::kErrorGpuIsLost) journal_.mark_lost(index_);
    return false;
  }

  Nvml& nvml_;
  const nvml::Device handle_;
  const int16_t index_;
  EnergyJournal& journal_;
};

// Read at fixed moments: a late one does not shift those after it, and those that passed are counted as
// missed.
class PeriodicNvmlReading : public NvmlReading {
 public:
  int64_t start(int64_t now_ns) override { return now_ns; }

  int64_t read(int64_t deadline_ns) override {
    if (journal_.is_lost(index_)) return kNever;
    const int64_t next_ns = journal_.count_sample(deadline_ns, period_ns_);
    sample();
    return next_ns;
  }

 protected:
  PeriodicNvmlReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal, int64_t period_ns)
      : NvmlReading(nvml, device, journal), period_ns_(period_ns) {}

  virtual void sample() = 0;

 private:
  const int64_t period_ns_;
};

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

// The energy counter: slow to read, so only around its ticks.
class TotalEnergyReading final : public NvmlReading {
 public:
  TotalEnergyReading(Nvml& nvml, const NvmlEnergyDevice& device, EnergyJournal& journal,
                     int64_t edge_period_ns)
      : NvmlReading(nvml, device, journal), tracker_(edge_period_ns) {}

  int64_t start(int64_t now_ns) override {
    uint64_t energy_mj = 0;
    if (check(nvml_.total_energy(handle_, energy_mj), "nvmlDeviceGetTotalEnergyConsumption")) {
      counter_.update(energy_mj, now_ns);
    }
    return now_ns + index_ * kStaggerNs;
  }

  int64_t read(int64_t) override {
    if (journal_.is_lost(index_)) return kNever;
    CounterRead read{monotonic_ns(), 0, 0};
    const nvml::Return result = nvml_.total_energy(handle_, read.value);
    read.after_ns = monotonic_ns();
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
    const uint64_t num_misses = tracker_.num_misses();
    const std::optional<CounterEdge> edge = tracker_.observe(read);
    if (tracker_.num_misses() > num_misses) journal_.count_missed_edges(tracker_.num_misses() - num_misses);
    if (edge) journal_.add_edge(index_, EnergySource::kNvmlTotalEnergy, *edge, counter_.energy_uj());
    return edge.has_value();
  }

  EnergyCounter counter_{kMicroJoulesPerMilliJoule, 0};
  EnergyEdgeTracker tracker_;
  bool is_finishing_ = false;
  int64_t end_ns_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<EnergyReading>> make_nvml_readings(Nvml& nvml, const NvmlEnergyDevice& device,
                                                               EnergyJournal& journal,
                                                               const NvmlReadingPeriods& periods) {
  using namespace reading_name;
  std::vector<std::unique_ptr<EnergyReading>> readings;
  if (device.find(kTotalEnergy) != nullptr) {
    readings.push_back(std::make_unique<TotalEnergyReading>(nvml, device, journal, periods.edge_ns));
  }
  auto fields = std::make_unique<PowerFieldsReading>(nvml, device, journal, periods.power_ns);
  const bool has_gpu_field = device.find(kPowerInstant) != nullptr || device.find(kPowerAverage) != nullptr;
  if (!fields->is_empty()) readings.push_back(std::move(fields));
  if (!has_gpu_field && device.find(kPowerUsage) != nullptr) {
    readings.push_back(std::make_unique<PowerUsageReading>(nvml, device, journal, periods.power_ns));
  }
  if (device.find(kPowerSamples) != nullptr) {
    readings.push_back(std::make_unique<PowerSamplesReading>(nvml, device, journal));
  }
  if (device.find(kSmClock) != nullptr || device.find(kMemoryClock) != nullptr ||
      device.find(kTemperature) != nullptr || device.find(kThrottleReasons) != nullptr) {
    readings.push_back(std::make_unique<ClockReading>(nvml, device, journal, periods.clock_ns));
  }
  return readings;
}

}  // namespace qmeter
