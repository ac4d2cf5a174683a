// Samples energy, power and clocks of all devices on a thread of its own. Constructed = running.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/process_guard.h"
#include "collect/energy_device.h"
#include "collect/energy_journal.h"
#include "records/spool.h"

namespace qmeter {

struct EnergySamplerOptions {
  int64_t power_period_ns = 50'000'000;
  int64_t clock_period_ns = 100'000'000;
  int64_t edge_period_ns = 1'000'000'000;  // between two edges of a slow energy counter
  // Of a core, for the calls of one slow energy counter: where they take more, edges come less often. At
  // most 1. Three calls of 3 ms each second would be 0.9 % if the driver spins.
  double counter_cpu_share = 0.007;
  std::string nvml_path;  // empty: by soname
  std::string powercap_root = "/sys/class/powercap";
  std::optional<std::vector<unsigned>> nvml_devices;  // empty: all
  bool use_nvml = true;
  bool use_rapl = true;
};

class EnergySampler {
 public:
  // Probe all sources, then start. A source that is missing is no error. `spool` may be null. Throws
  // Error(kInvalid) for periods under 1 ms, and for a share that is none.
  EnergySampler(std::shared_ptr<Spool> spool, const EnergySamplerOptions& options);
  ~EnergySampler();
  EnergySampler(const EnergySampler&) = delete;
  EnergySampler& operator=(const EnergySampler&) = delete;

  // All devices, GPUs first; a device's place is its index. In a forked child these are empty and do nothing.
  std::vector<EnergyDevice> sources() const;
  std::vector<LatestReadings> latest() const;
  EnergySamplerStats stats() const;
  std::optional<double> idle_power_mw(int16_t device) const;
  void mark_idle();

  // Wait for a last counter edge (at most 1.5 ticks), drain the ring, stop. Idempotent.
  void close() noexcept;

 private:
  class Sampling;
  ProcessGuard guard_;
  std::unique_ptr<Sampling> sampling_;
};

struct NvmlReport {
  std::string path;
  std::string driver;
  std::string version;
  std::vector<EnergyDevice> devices;
  std::string error;  // empty if NVML answers
};

// What NVML says, without sampling.
NvmlReport probe_nvml(const std::string& path);

}  // namespace qmeter
