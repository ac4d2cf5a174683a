// NVML devices as the energy sampler sees them: what each can be asked, and the readings that ask it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "collect/energy_device.h"
#include "collect/energy_journal.h"
#include "collect/energy_reading.h"
#include "driver/nvml.h"

namespace qmeter {

// Names of readings in EnergyDevice::readings.
namespace reading_name {
constexpr const char* kTotalEnergy = "total_energy";
constexpr const char* kPowerInstant = "power_instant";
constexpr const char* kPowerAverage = "power_average";
constexpr const char* kPowerMemoryAverage = "power_memory_average";
constexpr const char* kPowerUsage = "power_usage";
constexpr const char* kPowerSamples = "power_samples";
constexpr const char* kSmClock = "sm_clock";
constexpr const char* kMemoryClock = "memory_clock";
constexpr const char* kTemperature = "temperature";
constexpr const char* kThrottleReasons = "throttle_reasons";
constexpr const char* kThrottleTimes = "throttle_times";
}  // namespace reading_name

struct NvmlEnergyDevice {
  nvml::Device handle = nullptr;
  EnergyDevice info;
  bool is_power_usage_instant = false;  // nvmlDeviceGetPowerUsage is no 1 s mean on this GPU

  // The reading of that name if it works, else null.
  const ReadingInfo* find(const std::string& name) const noexcept;
};

// Ask `which` GPUs (all if empty) what they are and which readings work. Their `info.index` counts from 0 in
// this order. A GPU that does not answer is listed with the reason. Throws Error(kUnsupported) if NVML lists
// no GPUs.
std::vector<NvmlEnergyDevice> probe_nvml_devices(Nvml& nvml,
                                                 const std::optional<std::vector<unsigned>>& which);

struct NvmlReadingPeriods {
  int64_t power_ns;
  int64_t clock_ns;
  int64_t edge_ns;
  double counter_cpu_share;  // edges come less often where the counter's calls take more of a core
};

// Readings of all that works on `device`. `nvml` and `journal` must outlive them.
std::vector<std::unique_ptr<EnergyReading>> make_nvml_readings(Nvml& nvml, const NvmlEnergyDevice& device,
                                                               EnergyJournal& journal,
                                                               const NvmlReadingPeriods& periods);

}  // namespace qmeter
