// Hardware counters of one GPU at fixed intervals, into a spool. Constructed = enabled, and not started. In a
// forked child it is inert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/process_guard.h"
#include "collect/pm_decoder.h"
#include "driver/cuda_driver.h"
#include "driver/cupti_profiler.h"
#include "records/spool.h"

namespace qmeter {

struct PmSamplerOptions {
  int16_t device = 0;  // for the records
  std::string uuid;    // NVML's
  std::vector<PmMetric> metrics;
  int64_t interval_ns = 50'000;
  size_t hardware_buffer_bytes = 512 * 1024 * 1024;  // 64 MiB overflow within 20 ms at 2 us
  uint32_t image_samples = 2048;                     // at most, of 39 KB each with eight metrics
  double decode_budget = 1;                          // CPU seconds a second, between start and stop
  uint64_t max_samples = 0;                          // of a start; 0: no limit
};

struct PmSamplerInfo {
  std::string chip;
  std::string trigger;  // "gpu_time" or "sysclk"
  std::string mode;     // "continuous" or "bursts"; the former may become the latter
  int64_t interval_ns = 0;
  std::optional<uint64_t> interval_cycles;
  size_t num_metrics = 0;
  size_t config_bytes = 0;
  size_t image_bytes = 0;
  int32_t num_sms = 0;
  std::string path;
  uint32_t version = 0;
  int64_t setup_ns = 0;
};

struct PmSamplerStats {
  PmCounts counts;
  int64_t start_ns = 0;  // of the first start, 0 before it
  int64_t stop_ns = 0;   // of the last stop, 0 before it
  std::string error;     // first thing that went wrong, empty if nothing

  // As a kStats block: {"name": "pm_sampler_<device>", …}.
  std::string json(int16_t device) const;
};

class PmSampler {
 public:
  // `spool` may be null: then samples are decoded and counted only. Throws Error as PmSession does, and
  // kInvalid.
  PmSampler(std::shared_ptr<Spool> spool, std::shared_ptr<const CuptiProfiler> profiler,
            const std::shared_ptr<const CudaDriver>& cuda, const PmSamplerOptions& options);
  ~PmSampler();
  PmSampler(const PmSampler&) = delete;
  PmSampler& operator=(const PmSampler&) = delete;

  PmSamplerInfo info() const;
  PmSamplerStats stats() const;

  // Begin sampling. Idempotent. Throws Error as PmSession does; kInvalid after `close`.
  void start();

  // End sampling and decode what is left. Idempotent.
  void stop() noexcept;

  // Stop, disable, write the counter window. Idempotent.
  void close() noexcept;

 private:
  class Sampling;
  ProcessGuard guard_;
  std::unique_ptr<Sampling> sampling_;
};

}  // namespace qmeter
