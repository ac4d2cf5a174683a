// What all readings of an NVML device share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "collect/energy_journal.h"
#include "collect/energy_nvml.h"
#include "collect/energy_reading.h"
#include "driver/nvml.h"

namespace qmeter {

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

// Read at fixed moments: a late one does not shift those after it, and those that passed are counted
// as missed.
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

std::unique_ptr<EnergyReading> make_total_energy_reading(Nvml& nvml, const NvmlEnergyDevice& device,
                                                         EnergyJournal& journal,
                                                         const NvmlReadingPeriods& periods);
std::unique_ptr<EnergyReading> make_throttle_reading(Nvml& nvml, const NvmlEnergyDevice& device,
                                                     EnergyJournal& journal, int64_t clock_period_ns);
std::unique_ptr<EnergyReading> make_power_samples_reading(Nvml& nvml, const NvmlEnergyDevice& device,
                                                          EnergyJournal& journal);

}  // namespace qmeter
