#include "collect/metric_config.h"

#include <mutex>
#include <utility>

#include "base/error.h"

namespace qmeter {
namespace {

// CUPTI does not say that host objects may be made and destroyed on several threads at once.
std::mutex host_mutex;

std::string joined(const MetricNames& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void require(const CuptiProfiler& profiler, cupti::Result result, const char* action) {
  if (result == cupti::kSuccess) return;
  throw Error(ErrorCode::kUnsupported, std::string(action) + " failed with " + profiler.result_name(result) +
                                           " (" + profiler.path() + ")");
}

struct Config {
  CuptiImage image;
  size_t num_passes = 0;
};

// A host object takes metrics but never gives them back, so each config has its own.
Config make_config(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
                   const CuptiImage& availability, const MetricNames& names) {
  if (names.empty()) throw Error(ErrorCode::kInvalid, "no metrics were asked for");
  MetricHost host(profiler, chip, availability);
  host.add(names);
  Config config;
  require(*profiler, profiler->config_image(config.image, host.object()), "cuptiProfilerHostGetConfigImage");
  require(*profiler, profiler->num_passes(config.num_passes, config.image),
          "cuptiProfilerHostGetNumOfPasses");
  return config;
}

// Those that no longer fit, when metrics are added one after another.
MetricNames beyond_one_pass(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
                            const CuptiImage& availability, const MetricNames& names) {
  MetricNames fitting;
  MetricNames beyond;
  for (const std::string& name : names) {
    fitting.push_back(name);
    if (make_config(profiler, chip, availability, fitting).num_passes == 1) continue;
    fitting.pop_back();
    beyond.push_back(name);
  }
  return beyond;
}

}  // namespace

MetricHost::MetricHost(std::shared_ptr<const CuptiProfiler> profiler, const std::string& chip,
                       const CuptiImage& availability)
    : profiler_(std::move(profiler)) {
  const std::lock_guard<std::mutex> lock(host_mutex);
  const cupti::Result result = profiler_->create_host(host_, chip, availability);
  if (result == cupti::kSuccess) return;
  throw Error(ErrorCode::kUnsupported,
              profiler_->path() + " cannot sample the chip " + chip + ": " + profiler_->result_name(result));
}

MetricHost::~MetricHost() {
  const std::lock_guard<std::mutex> lock(host_mutex);
  profiler_->destroy_host(host_);
}

MetricNames MetricHost::unknown(const MetricNames& names) const {
  MetricNames unknown;
  for (const std::string& name : names) {
    if (profiler_->find_metric(host_, name) != cupti::kSuccess) unknown.push_back(name);
  }
  return unknown;
}

void MetricHost::add(const MetricNames& names) {
  require(*profiler_, profiler_->add_metrics(host_, names), "cuptiProfilerHostConfigAddMetrics");
}

std::vector<std::string> pm_chips(const CuptiProfiler& profiler) {
  std::vector<std::string> chips;
  require(profiler, profiler.supported_chips(chips), "cuptiProfilerHostGetSupportedChips");
  return chips;
}

MetricCheck check_metrics(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
                          const MetricNames& names) {
  MetricCheck check;
  check.unknown = MetricHost(profiler, chip, {}).unknown(names);
  if (!check.unknown.empty()) return check;
  const Config config = make_config(profiler, chip, {}, names);
  check.passes = config.num_passes;
  check.config_bytes = config.image.size();
  return check;
}

CuptiImage single_pass_config(const std::shared_ptr<const CuptiProfiler>& profiler, const std::string& chip,
                              const CuptiImage& availability, const MetricNames& names) {
  const MetricNames unknown = MetricHost(profiler, chip, availability).unknown(names);
  if (!unknown.empty()) throw Error(ErrorCode::kUnsupported, chip + " has no metrics " + joined(unknown));
  Config config = make_config(profiler, chip, availability, names);
  if (config.num_passes == 1) return std::move(config.image);
  throw Error(ErrorCode::kUnsupported, "the metrics need " + std::to_string(config.num_passes) +
                                           " passes on " + chip +
                                           ", sampling has one; without these they would fit: " +
                                           joined(beyond_one_pass(profiler, chip, availability, names)));
}

}  // namespace qmeter
