#include "collect/energy_stats.h"

#include <algorithm>

#include "base/json.h"

namespace qmeter {
namespace {

constexpr size_t kMaxDelays = 4096;  // two minutes at the default periods

template <typename Items, typename Format>
std::string joined(const Items& items, Format format) {
  std::string result;
  for (const auto& item : items) {
    if (!result.empty()) result += ", ";
    result += format(item);
  }
  return result;
}

}  // namespace

std::string to_json(const EnergySamplerStats& stats) {
  std::string json = "{\"name\": \"energy_sampler\"";
  const auto add = [&json](const char* key, auto value) {
    json += std::string(", \"") + key + "\": " + std::to_string(value);
  };
  add("samples", stats.samples);
  add("missed_samples", stats.missed_samples);
  add("cpu_ns", stats.cpu_ns);
  add("blocked_ns", stats.blocked_ns);
  add("jitter_p50_ns", stats.jitter_p50_ns);
  add("jitter_p99_ns", stats.jitter_p99_ns);
  add("jitter_max_ns", stats.jitter_max_ns);
  add("counter_calls", stats.counter_calls);
  add("counter_resets", stats.counter_resets);
  add("edges", stats.edges);
  add("missed_edges", stats.missed_edges);
  const auto error_text = [](const auto& entry) {
    return json_string(entry.first) + ": " + std::to_string(entry.second);
  };
  json += ", \"errors\": {" + joined(stats.errors, error_text) + "}";
  json +=
      ", \"devices_lost\": [" + joined(stats.devices_lost, [](int16_t i) { return std::to_string(i); }) + "]";
  return json + "}";
}

void JitterHistory::add(int64_t delay_ns) {
  max_ns_ = std::max(max_ns_, delay_ns);
  if (delays_.size() < kMaxDelays) {
    delays_.push_back(delay_ns);
  } else {
    delays_[next_] = delay_ns;
    next_ = (next_ + 1) % kMaxDelays;
  }
}

int64_t JitterHistory::quantile(double quantile) const {
  if (delays_.empty()) return 0;
  std::vector<int64_t> delays = delays_;
  const auto rank = static_cast<size_t>(quantile * static_cast<double>(delays.size() - 1) + 0.5);
  std::nth_element(delays.begin(), delays.begin() + static_cast<std::ptrdiff_t>(rank), delays.end());
  return delays[rank];
}

}  // namespace qmeter
