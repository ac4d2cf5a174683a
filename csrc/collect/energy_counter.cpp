#include "collect/energy_counter.h"

namespace qmeter {
namespace {

constexpr int64_t kMaxPowerW = 20'000;  // more than any board or socket draws
constexpr uint64_t k32BitRange = uint64_t{1} << 32;

}  // namespace

bool EnergyCounter::update(uint64_t raw, int64_t time_ns) noexcept {
  const bool is_back = has_value_ && raw < raw_;
  if (is_back) {
    energy_uj_ += gone_back_uj(raw, time_ns - time_ns_);
  } else if (has_value_) {
    energy_uj_ += static_cast<int64_t>(raw - raw_) * unit_uj_;
  }
  has_value_ = true;
  raw_ = raw;
  time_ns_ = time_ns;
  return is_back;
}

// What was spent while the counter went back: a wrap at the known range, at 32 bits, or a restart from 0, the
// first of them that a device could have drawn in that time. If none could, the energy is unknown and nothing
// is added.
int64_t EnergyCounter::gone_back_uj(uint64_t raw, int64_t elapsed_ns) const noexcept {
  const int64_t limit_uj = elapsed_ns / 1000 * kMaxPowerW + unit_uj_;  // W * us = uJ
  const uint64_t ranges[] = {range_, k32BitRange};
  for (const uint64_t range : ranges) {
    if (range < raw_) continue;
    const auto spent_uj = static_cast<int64_t>(range - raw_ + raw) * unit_uj_;
    if (spent_uj <= limit_uj) return spent_uj;
  }
  const auto since_reset_uj = static_cast<int64_t>(raw) * unit_uj_;
  return since_reset_uj <= limit_uj ? since_reset_uj : 0;
}

}  // namespace qmeter
