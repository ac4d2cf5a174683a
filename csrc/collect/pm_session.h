// PM sampling enabled on one GPU. Constructed = enabled, which alone raises the GPU's power; destroyed =
// disabled.
//
// CUPTI samples the device, whatever process and context works on it: no context is made here, cuInit is
// enough. One session may be enabled on a device at a time, in all processes together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "driver/cuda_driver.h"
#include "driver/cupti_profiler.h"

namespace qmeter {

struct PmSessionSettings {
  std::string uuid;  // NVML's
  MetricNames metrics;
  int64_t interval_ns = 50'000;
  size_t hardware_buffer_bytes = 512 * 1024 * 1024;
};

struct PmTrigger {
  cupti::TriggerMode mode = cupti::kTriggerTimeInterval;
  uint64_t interval = 0;  // nanoseconds or cycles, by mode
};

class PmSession {
 public:
  // Throws Error: kNotFound (no driver, no such GPU), kUnsupported (MIG, chip, metrics), kForbidden, kTaken,
  // kInvalid. Whatever was done until then is undone.
  PmSession(std::shared_ptr<const CuptiProfiler> profiler, const CudaDriver& cuda,
            const PmSessionSettings& settings);
  PmSession(const PmSession&) = delete;
  PmSession& operator=(const PmSession&) = delete;

  const std::shared_ptr<const CuptiProfiler>& profiler() const noexcept { return profiler_; }
  cupti::PmSamplingObject* object() const noexcept { return object_.get(); }
  const std::string& chip() const noexcept { return chip_; }
  const CuptiImage& availability() const noexcept { return availability_; }
  const PmTrigger& trigger() const noexcept { return trigger_; }
  size_t config_bytes() const noexcept { return config_.size(); }
  int32_t num_sms() const noexcept { return num_sms_; }

  // The GPU samples into its hardware buffer. Throws Error as the constructor does.
  void start();

  // What was sampled stays in the hardware buffer.
  cupti::Result stop() noexcept;

 private:
  // The right to sample a device in this process. A second session would be disabled along with the first.
  class Claim {
   public:
    explicit Claim(const std::string& uuid);  // throws Error(kTaken)
    ~Claim();
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

   private:
    const std::string uuid_;
  };

  struct Disable {
    const CuptiProfiler* profiler;
    void operator()(cupti::PmSamplingObject* object) const noexcept { profiler->disable(object); }
  };
  using Enabled = std::unique_ptr<cupti::PmSamplingObject, Disable>;

  void require(cupti::Result result, const char* action) const;
  void require_support(cuda::Device device) const;
  void configure(const PmSessionSettings& settings, int32_t clock_khz);
  [[noreturn]] void refuse(cupti::Result result, const char* action) const;

  const std::shared_ptr<const CuptiProfiler> profiler_;
  const Claim claim_;
  std::string chip_;
  CuptiImage availability_;
  CuptiImage config_;  // before `object_`: CUPTI reads it until the session is disabled
  PmTrigger trigger_;
  int32_t num_sms_ = 0;
  Enabled object_;
};

}  // namespace qmeter
