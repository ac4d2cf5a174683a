// The part of CUPTI's profiler that PM sampling needs: host objects, which work without a GPU, and sampling
// sessions. Functions that return a Result are `noexcept` and leave their outputs alone on failure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi/cupti_profiler.h"

namespace qmeter {

using MetricNames = std::vector<std::string>;
using CuptiImage = std::vector<uint8_t>;

struct PmSamplingSettings {
  const CuptiImage* config = nullptr;  // CUPTI keeps the pointer: it must live as long as the session
  size_t hardware_buffer_bytes = 0;
  uint64_t interval = 0;  // in the trigger's unit
  cupti::TriggerMode trigger = cupti::kTriggerTimeInterval;
};

struct PmDecodeEnd {
  cupti::DecodeStopReason reason = 0;
  bool is_overflow = false;
};

struct PmImageInfo {
  size_t num_total = 0;
  size_t num_populated = 0;
  size_t num_completed = 0;
};

struct PmSampleTimes {
  int64_t start_ns = 0;  // on the clock that stamps activities
  int64_t end_ns = 0;
};

class CuptiProfiler {
 public:
  virtual ~CuptiProfiler() = default;

  virtual const std::string& path() const noexcept = 0;
  virtual uint32_t version() const noexcept = 0;
  // "CUPTI_ERROR_…" for a result.
  virtual std::string result_name(cupti::Result result) const = 0;

  // For the whole process, after cuInit. May be called again.
  virtual cupti::Result initialize() const noexcept = 0;
  virtual cupti::Result device_support(cupti::DeviceSupportedParams& support,
                                       int32_t device) const noexcept = 0;
  virtual cupti::Result chip_name(std::string& chip, size_t device) const noexcept = 0;
  // Fails while another session is active.
  virtual cupti::Result counter_availability(CuptiImage& image, size_t device) const noexcept = 0;

  virtual cupti::Result supported_chips(std::vector<std::string>& chips) const noexcept = 0;
  // `availability` may be empty: then all counters of the chip are there.
  virtual cupti::Result create_host(cupti::HostObject*& host, const std::string& chip,
                                    const CuptiImage& availability) const noexcept = 0;
  virtual cupti::Result destroy_host(cupti::HostObject* host) const noexcept = 0;
  // Success if the chip has a metric of this name; rollups such as ".sum" are not looked at.
  virtual cupti::Result find_metric(cupti::HostObject* host, const std::string& name) const noexcept = 0;
  virtual cupti::Result add_metrics(cupti::HostObject* host, const MetricNames& names) const noexcept = 0;
  virtual cupti::Result config_image(CuptiImage& image, cupti::HostObject* host) const noexcept = 0;
  virtual cupti::Result num_passes(size_t& num_passes, const CuptiImage& config) const noexcept = 0;
  // `values` takes as many as there are names. Host objects are not to be shared between threads.
  virtual cupti::Result evaluate(double* values, cupti::HostObject* host, const CuptiImage& image,
                                 size_t index, const std::vector<const char*>& names) const noexcept = 0;

  virtual cupti::Result enable(cupti::PmSamplingObject*& object, size_t device) const noexcept = 0;
  virtual cupti::Result disable(cupti::PmSamplingObject* object) const noexcept = 0;
  virtual cupti::Result configure(cupti::PmSamplingObject* object,
                                  const PmSamplingSettings& settings) const noexcept = 0;
  virtual cupti::Result start(cupti::PmSamplingObject* object) const noexcept = 0;
  virtual cupti::Result stop(cupti::PmSamplingObject* object) const noexcept = 0;

  virtual cupti::Result image_bytes(size_t& bytes, cupti::PmSamplingObject* object, const MetricNames& names,
                                    uint32_t max_samples) const noexcept = 0;
  // Empties an image; costs as much as writing all of it.
  virtual cupti::Result initialize_image(CuptiImage& image,
                                         cupti::PmSamplingObject* object) const noexcept = 0;
  // From the hardware buffer into the image. Answers kErrorOutOfMemory after an overflow; `end` holds then
  // too.
  virtual cupti::Result decode(PmDecodeEnd& end, CuptiImage& image,
                               cupti::PmSamplingObject* object) const noexcept = 0;
  virtual cupti::Result image_info(PmImageInfo& info, const CuptiImage& image) const noexcept = 0;
  virtual cupti::Result sample_times(PmSampleTimes& times, cupti::PmSamplingObject* object,
                                     const CuptiImage& image, size_t index) const noexcept = 0;
};

// The profiler in the CUPTI at `path`. Throws Error(kNotFound), or Error(kUnsupported) for CUPTI before
// CUDA 12.8.
std::shared_ptr<const CuptiProfiler> load_cupti_profiler(const std::string& path);

}  // namespace qmeter
