// What the energy sampler knows of a device before it samples.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace qmeter {

// Whether a reading works, why not, and what one call costs (median of a few).
struct ReadingInfo {
  std::string name;
  bool is_ok = false;
  std::string reason;
  int64_t call_cost_ns = 0;
};

using DeviceProperty = std::variant<int64_t, bool, std::string>;

struct EnergyDevice {
  int16_t index = 0;  // what records hold
  std::string kind;   // "cuda" or "cpu"
  std::string name;
  std::string uuid;
  std::string driver;  // empty for CPUs
  std::string energy;  // "nvml_total_energy", "nvml_power_samples", "rapl", or empty
  std::string reason;  // why there is no better source of energy; empty if there is
  std::vector<ReadingInfo> readings;
  std::vector<std::pair<std::string, DeviceProperty>> properties;
};

}  // namespace qmeter
