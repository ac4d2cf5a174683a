// Which metrics a chip can sample together, and the config image that tells CUPTI how. Works without a GPU.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "driver/cupti_profiler.h"

namespace qmeter {

// What CUPTI knows about the metrics of one chip. Not to be shared between threads.
class MetricHost {
 public:
  // Throws Error(kUnsupported) for a chip that CUPTI does not know. `availability` may be empty.
  MetricHost(std::shared_ptr<const CuptiProfiler> profiler, const std::string& chip,
             const CuptiImage& availability);
  ~MetricHost();
  MetricHost(const MetricHost&) = delete;
  MetricHost& operator=(const MetricHost&) = delete;

  cupti::HostObject* object() const noexcept { return host_; }

  // Those of `names` that the chip does not have.
  MetricNames unknown(const MetricNames& names) const;

  // Schedule metrics, which CUPTI's own programs do before they evaluate any. Throws Error(kUnsupported).
  void add(const MetricNames& names);

 private:
  const std::shared_ptr<const CuptiProfiler> profiler_;
  cupti::HostObject* host_ = nullptr;
};

struct MetricCheck {
  std::optional<size_t> passes;  // empty if some are unknown
  size_t config_bytes = 0;
  MetricNames unknown;
};

// Chips whose metrics CUPTI knows, such as "GH100". Throws Error(kUnsupported).
std::vector<std::string> pm_chips(const CuptiProfiler& profiler);

// Throws Error: kUnsupported for an unknown chip, kInvalid without metrics.
MetricCheck check_metrics(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
                          const MetricNames& names);

// The config image of metrics that fit into one pass. Throws Error: kUnsupported naming the metrics that are
// unknown, or those that need another pass; kInvalid without metrics.
CuptiImage single_pass_config(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
                              const CuptiImage& availability, const MetricNames& names);

}  // namespace qmeter
