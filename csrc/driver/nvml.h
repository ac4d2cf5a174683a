// NVML as we use it: one member per call, the vendor's units (mW, mJ, MHz, microseconds) and the vendor's
// return codes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi/nvml.h"

namespace qmeter {

struct NvmlPowerField {
  unsigned field;
  unsigned scope;
  nvml::Return result = nvml::kErrorNotSupported;
  int64_t power_mw = 0;
};

struct NvmlPowerSample {
  int64_t time_us;  // the driver's stamp
  int64_t power_mw;
};

// How long clocks have been held down, cumulative; -1 where the driver does not say.
struct NvmlThrottleTimes {
  int64_t power_ns = -1;    // by a power limit or the external power brake
  int64_t thermal_ns = -1;  // by a thermal limit, in software or hardware
};

class Nvml {
 public:
  virtual ~Nvml() = default;

  // What was loaded, and versions as the vendor prints them; empty where NVML does not say.
  virtual std::string path() const = 0;
  virtual std::string driver_version() = 0;
  virtual std::string nvml_version() = 0;
  virtual int cuda_driver_version() = 0;  // 1000 * major + 10 * minor; 0 if unknown

  virtual std::string error_text(nvml::Return code) = 0;

  virtual nvml::Return device_count(unsigned& count) = 0;
  virtual nvml::Return device(unsigned index, nvml::Device& device) = 0;
  virtual nvml::Return name(nvml::Device device, std::string& name) = 0;
  virtual nvml::Return uuid(nvml::Device device, std::string& uuid) = 0;
  virtual nvml::Return mig_mode(nvml::Device device, bool& is_enabled) = 0;
  virtual nvml::Return memory_bytes(nvml::Device device, uint64_t& total) = 0;
  virtual nvml::Return power_limit(nvml::Device device, unsigned& limit_mw) = 0;
  virtual nvml::Return compute_capability(nvml::Device device, int& major, int& minor) = 0;

  virtual nvml::Return total_energy(nvml::Device device, uint64_t& energy_mj) = 0;
  virtual nvml::Return power_usage(nvml::Device device, int64_t& power_mw) = 0;

  // All `fields` in one call. Each field has a result of its own; the return value is the call's.
  virtual nvml::Return power_fields(nvml::Device device, std::vector<NvmlPowerField>& fields) = 0;

  // Samples of the driver's power ring that are newer than `last_seen_us`, oldest first. None is no error.
  virtual nvml::Return power_samples(nvml::Device device, int64_t last_seen_us,
                                     std::vector<NvmlPowerSample>& samples) = 0;

  virtual nvml::Return clock(nvml::Device device, int type, unsigned& mhz) = 0;
  virtual nvml::Return temperature(nvml::Device device, unsigned& celsius) = 0;
  virtual nvml::Return throttle_reasons(nvml::Device device, uint64_t& reasons) = 0;

  // Succeeds if either time is known.
  virtual nvml::Return throttle_times(nvml::Device device, NvmlThrottleTimes& times) = 0;
};

// Load NVML from `path`, or by its soname if `path` is empty, and initialise it until the object dies. Throws
// Error: kNotFound (no library), kForbidden, kUnsupported (no driver, or another version than the library's).
std::unique_ptr<Nvml> open_nvml(const std::string& path);

}  // namespace qmeter
