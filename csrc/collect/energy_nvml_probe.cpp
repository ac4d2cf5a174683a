#include <algorithm>
#include <array>
#include <functional>

#include "base/clock.h"
#include "base/error.h"
#include "collect/energy_nvml.h"

namespace qmeter {
namespace {

constexpr size_t kProbeCalls = 5;  // the first is often slow; the median of five is not

using Call = std::function<nvml::Return()>;

// Call a few times: does it work, and what does a call cost?
ReadingInfo probe(Nvml& nvml, const char* name, const Call& call) {
  ReadingInfo info;
  info.name = name;
  std::array<int64_t, kProbeCalls> costs_ns{};
  for (int64_t& cost_ns : costs_ns) {
    const int64_t start_ns = monotonic_ns();
    const nvml::Return result = call();
    cost_ns = monotonic_ns() - start_ns;
    if (result != nvml::kSuccess) {
      info.reason = nvml.error_text(result);
      return info;
    }
  }
  std::sort(costs_ns.begin(), costs_ns.end());
  info.is_ok = true;
  info.call_cost_ns = costs_ns[kProbeCalls / 2];
  return info;
}

ReadingInfo probe_field(Nvml& nvml, nvml::Device device, const char* name, unsigned field, unsigned scope) {
  std::vector<NvmlPowerField> fields{{field, scope}};
  return probe(nvml, name, [&] {
    nvml.power_fields(device, fields);
    return fields[0].result;
  });
}

// Some virtual GPUs answer the energy counter with 0 for ever.
ReadingInfo probe_total_energy(Nvml& nvml, nvml::Device device, bool is_mig) {
  uint64_t energy_mj = 0;
  ReadingInfo info =
      probe(nvml, reading_name::kTotalEnergy, [&] { return nvml.total_energy(device, energy_mj); });
  if (info.is_ok && energy_mj == 0) {
    info.is_ok = false;
    info.reason = "the counter reads 0";
  }
  if (!info.is_ok && is_mig) info.reason += " (MIG is on, and NVML counts energy for whole GPUs only)";
  return info;
}

ReadingInfo probe_power_samples(Nvml& nvml, nvml::Device device) {
  std::vector<NvmlPowerSample> samples;
  ReadingInfo info =
      probe(nvml, reading_name::kPowerSamples, [&] { return nvml.power_samples(device, 0, samples); });
  if (info.is_ok && samples.empty()) {
    info.is_ok = false;
    info.reason = "the driver's ring of power samples is empty";
  }
  return info;
}

void probe_readings(Nvml& nvml, NvmlEnergyDevice& device, bool is_mig) {
  using namespace reading_name;
  const nvml::Device handle = device.handle;
  std::vector<ReadingInfo>& readings = device.info.readings;
  int64_t power_mw = 0;
  unsigned number = 0;
  uint64_t reasons = 0;
  NvmlThrottleTimes times;
  readings.push_back(probe_total_energy(nvml, handle, is_mig));
  readings.push_back(probe_power_samples(nvml, handle));
  readings.push_back(
      probe_field(nvml, handle, kPowerInstant, nvml::kPowerInstantField, nvml::kPowerScopeGpu));
  readings.push_back(
      probe_field(nvml, handle, kPowerAverage, nvml::kPowerAverageField, nvml::kPowerScopeGpu));
  readings.push_back(
      probe_field(nvml, handle, kPowerMemoryAverage, nvml::kPowerAverageField, nvml::kPowerScopeMemory));
  readings.push_back(probe(nvml, kPowerUsage, [&] { return nvml.power_usage(handle, power_mw); }));
  readings.push_back(probe(nvml, kSmClock, [&] { return nvml.clock(handle, nvml::kClockSm, number); }));
  readings.push_back(
      probe(nvml, kMemoryClock, [&] { return nvml.clock(handle, nvml::kClockMemory, number); }));
  readings.push_back(probe(nvml, kTemperature, [&] { return nvml.temperature(handle, number); }));
  readings.push_back(probe(nvml, kThrottleReasons, [&] { return nvml.throttle_reasons(handle, reasons); }));
  readings.push_back(probe(nvml, kThrottleTimes, [&] { return nvml.throttle_times(handle, times); }));
}

void read_properties(Nvml& nvml, NvmlEnergyDevice& device, unsigned nvml_index, bool is_mig) {
  auto& properties = device.info.properties;
  properties.emplace_back("nvml_index", static_cast<int64_t>(nvml_index));
  properties.emplace_back("mig", is_mig);
  properties.emplace_back("cuda_driver_version", static_cast<int64_t>(nvml.cuda_driver_version()));
  uint64_t memory_bytes = 0;
  if (nvml.memory_bytes(device.handle, memory_bytes) == nvml::kSuccess) {
    properties.emplace_back("memory_bytes", static_cast<int64_t>(memory_bytes));
  }
  unsigned limit_mw = 0;
  if (nvml.power_limit(device.handle, limit_mw) == nvml::kSuccess) {
    properties.emplace_back("power_limit_mw", static_cast<int64_t>(limit_mw));
  }
  int major = 0;
  int minor = 0;
  if (nvml.compute_capability(device.handle, major, minor) == nvml::kSuccess) {
    properties.emplace_back("compute_capability", std::to_string(major) + "." + std::to_string(minor));
    // The header of NVML: a 1 s mean on Ampere (except GA100) and newer, instantaneous before.
    device.is_power_usage_instant = major < 8 || (major == 8 && minor == 0);
  }
}

NvmlEnergyDevice probe_device(Nvml& nvml, unsigned nvml_index, int16_t index) {
  NvmlEnergyDevice device;
  device.info.index = index;
  device.info.kind = "cuda";
  device.info.name = "GPU " + std::to_string(nvml_index);
  device.info.driver = nvml.driver_version();
  const nvml::Return result = nvml.device(nvml_index, device.handle);
  if (result != nvml::kSuccess) {
    device.info.reason =
        "NVML does not give GPU " + std::to_string(nvml_index) + ": " + nvml.error_text(result);
    return device;
  }
  nvml.name(device.handle, device.info.name);
  nvml.uuid(device.handle, device.info.uuid);
  bool is_mig = false;
  nvml.mig_mode(device.handle, is_mig);
  read_properties(nvml, device, nvml_index, is_mig);
  probe_readings(nvml, device, is_mig);
  const ReadingInfo& counter = device.info.readings.front();
  if (counter.is_ok) {
    device.info.energy = "nvml_total_energy";
  } else {
    device.info.reason = "no energy counter: " + counter.reason;
    if (device.find(reading_name::kPowerSamples) != nullptr) device.info.energy = "nvml_power_samples";
  }
  return device;
}

}  // namespace

const ReadingInfo* NvmlEnergyDevice::find(const std::string& name) const noexcept {
  for (const ReadingInfo& reading : info.readings) {
    if (reading.name == name && reading.is_ok) return &reading;
  }
  return nullptr;
}

std::vector<NvmlEnergyDevice> probe_nvml_devices(Nvml& nvml,
                                                 const std::optional<std::vector<unsigned>>& which) {
  std::vector<unsigned> indices;
  if (which) {
    indices = *which;
  } else {
    unsigned count = 0;
    const nvml::Return result = nvml.device_count(count);
    if (result != nvml::kSuccess || count == 0) {
      const std::string reason = result != nvml::kSuccess ? nvml.error_text(result) : "there is none";
      throw Error(ErrorCode::kUnsupported, nvml.path() + " lists no GPU: " + reason);
    }
    for (unsigned index = 0; index < count; ++index) indices.push_back(index);
  }
  std::vector<NvmlEnergyDevice> devices;
  for (const unsigned index : indices) {
    devices.push_back(probe_device(nvml, index, static_cast<int16_t>(devices.size())));
  }
  return devices;
}

}  // namespace qmeter
