#include "inject/clock_offsets.h"

#include <algorithm>
#include <string>

#include "base/clock.h"

namespace qmeter {
namespace {

constexpr size_t kMaxRecent = 1024;
constexpr int kReadingsPerBatch = 8;

}  // namespace

void ClockOffsets::read(const Cupti& cupti) {
  int64_t best_width_ns = INT64_MAX;
  int64_t offset_ns = 0;
  for (int i = 0; i < kReadingsPerBatch; ++i) {
    uint64_t stamp_ns = 0;
    const int64_t before_ns = realtime_ns();
    const cupti::Result result = cupti.timestamp(&stamp_ns);
    const int64_t width_ns = realtime_ns() - before_ns;
    if (result != cupti::kSuccess || width_ns < 0 || width_ns >= best_width_ns) continue;
    best_width_ns = width_ns;
    offset_ns = static_cast<int64_t>(stamp_ns) - before_ns - width_ns / 2;
  }
  if (best_width_ns == INT64_MAX) return;
  if (recent_ns_.size() < kMaxRecent) {
    recent_ns_.push_back(offset_ns);
  } else {
    recent_ns_[count_ % kMaxRecent] = offset_ns;
  }
  ++count_;
  min_ns_ = std::min(min_ns_, offset_ns);
  max_ns_ = std::max(max_ns_, offset_ns);
}

void ClockOffsets::add_to(JsonObject& object) const {
  const auto number = [&](int64_t value) { return count_ > 0 ? std::to_string(value) : "null"; };
  std::vector<int64_t> sorted = recent_ns_;
  std::sort(sorted.begin(), sorted.end());
  object.add_raw("clock_offset_median_ns", number(count_ > 0 ? sorted[sorted.size() / 2] : 0))
      .add_raw("clock_offset_min_ns", number(min_ns_))
      .add_raw("clock_offset_max_ns", number(max_ns_))
      .add("clock_offset_count", count_);
}

}  // namespace qmeter
