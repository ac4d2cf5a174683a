#include "collect/energy_journal.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/clock.h"

namespace qmeter {
namespace {

constexpr int64_t kMaxRecordGapNs = kNsPerSecond;  // an unchanged value is recorded again after this

size_t slot(EnergySource source) noexcept { return static_cast<size_t>(source); }

// Readings of power, the most direct first.
constexpr EnergySource kPowerSources[] = {EnergySource::kNvmlPowerInstant, EnergySource::kNvmlPowerAverage,
                                          EnergySource::kNvmlPowerSamples, EnergySource::kRapl};

// 1 uJ/ns = 10^6 mW.
double mean_power_mw(double energy_uj, double time_ns) noexcept { return energy_uj / time_ns * 1e6; }

bool has_same_values(const ClockRecord& a, const ClockRecord& b) noexcept {
  return a.sm_mhz == b.sm_mhz && a.memory_mhz == b.memory_mhz && a.temperature_c == b.temperature_c &&
         a.throttle_reasons == b.throttle_reasons;
}

std::optional<int64_t> if_readable(int64_t value) noexcept {
  return value >= 0 ? std::optional<int64_t>(value) : std::nullopt;
}

}  // namespace

EnergyJournal::EnergyJournal(std::shared_ptr<Spool> spool, size_t num_devices)
    : spool_(std::move(spool)), devices_(num_devices) {}

void EnergyJournal::add_edge(int16_t device, EnergySource source, const CounterEdge& edge,
                             int64_t energy_uj) {
  const ClockPair now = read_clock_pair();  // two plain reads may be milliseconds apart
  const int64_t to_realtime_ns = now.realtime_ns - now.monotonic_ns;
  const EnergyRecord record{device, static_cast<uint8_t>(source), edge.low_ns + to_realtime_ns,
                            edge.high_ns + to_realtime_ns, energy_uj};
  if (spool_) spool_->append(RecordKind::kEnergy, &record, sizeof record, 1);
  const EdgePoint point{
      static_cast<double>(edge.low_ns) + static_cast<double>(edge.high_ns - edge.low_ns) / 2, energy_uj};
  const std::lock_guard<std::mutex> lock(mutex_);
  DeviceState& state = devices_[static_cast<size_t>(device)];
  if (source == EnergySource::kRapl && state.last_edge && point.time_ns > state.last_edge->time_ns) {
    const auto spent_uj = static_cast<double>(energy_uj - state.last_edge->energy_uj);
    state.power_mw[slot(source)] =
        static_cast<int64_t>(mean_power_mw(spent_uj, point.time_ns - state.last_edge->time_ns));
  }
  state.last_edge = point;
  if (!state.first_idle_edge) state.first_idle_edge = point;
  ++stats_.edges;
}

void EnergyJournal::add_power(int16_t device, EnergySource source, int64_t time_ns, int64_t power_mw) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::optional<Recorded>& recorded = note_power(device, source, time_ns, power_mw).recorded[slot(source)];
  const bool is_news =
      !recorded || recorded->value != power_mw || time_ns - recorded->time_ns >= kMaxRecordGapNs;
  if (!is_news) return;
  recorded = Recorded{time_ns, power_mw};
  record_power(device, source, time_ns, power_mw);
}

void EnergyJournal::add_power_sample(int16_t device, int64_t time_ns, int64_t power_mw) {
  const std::lock_guard<std::mutex> lock(mutex_);
  note_power(device, EnergySource::kNvmlPowerSamples, time_ns, power_mw);
  record_power(device, EnergySource::kNvmlPowerSamples, time_ns, power_mw);
}

EnergyJournal::DeviceState& EnergyJournal::note_power(int16_t device, EnergySource source, int64_t time_ns,
                                                      int64_t power_mw) {
  DeviceState& state = devices_[static_cast<size_t>(device)];
  state.power_mw[slot(source)] = power_mw;
  if (time_ns < idle_start_ns_) return state;  // the driver's ring still holds a second from before the mark
  state.idle_power[slot(source)].sum += static_cast<double>(power_mw);
  ++state.idle_power[slot(source)].count;
  return state;
}

void EnergyJournal::record_power(int16_t device, EnergySource source, int64_t time_ns, int64_t power_mw) {
  const auto limited = static_cast<int32_t>(std::min<int64_t>(power_mw, std::numeric_limits<int32_t>::max()));
  const PowerRecord record{device, static_cast<uint8_t>(source), time_ns, limited};
  if (spool_) spool_->append(RecordKind::kPower, &record, sizeof record, 1);
}

void EnergyJournal::add_clocks(const ClockRecord& clocks) {
  const std::lock_guard<std::mutex> lock(mutex_);
  DeviceState& state = devices_[static_cast<size_t>(clocks.device)];
  state.clocks = clocks;
  const std::optional<ClockRecord>& recorded = state.recorded_clocks;
  if (recorded && has_same_values(*recorded, clocks) && clocks.time_ns - recorded->time_ns < kMaxRecordGapNs)
    return;
  state.recorded_clocks = clocks;
  if (spool_) spool_->append(RecordKind::kClock, &clocks, sizeof clocks, 1);
}

void EnergyJournal::add_throttle(const ThrottleRecord& throttle) {
  if (spool_) spool_->append(RecordKind::kThrottle, &throttle, sizeof throttle, 1);
}

void EnergyJournal::add_clock_pair() {
  const ClockPair pair = read_clock_pair();
  const ClockPairRecord record{pair.realtime_ns, pair.monotonic_ns};
  if (spool_) spool_->append(RecordKind::kClockPair, &record, sizeof record, 1);
}

void EnergyJournal::add_stats() {
  if (spool_) spool_->append_stats(to_json(stats()));
}

int64_t EnergyJournal::count_sample(int64_t deadline_ns, int64_t period_ns) {
  const int64_t late_ns = std::max<int64_t>(0, monotonic_ns() - deadline_ns);
  const int64_t num_missed = late_ns / period_ns;
  const std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.samples;
  stats_.missed_samples += static_cast<uint64_t>(num_missed);
  jitter_.add(late_ns - num_missed * period_ns);
  return deadline_ns + (num_missed + 1) * period_ns;
}

void EnergyJournal::count_missed_samples(uint64_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.missed_samples += count;
}

void EnergyJournal::count_counter_call() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.counter_calls;
}

void EnergyJournal::count_counter_reset() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.counter_resets;
}

void EnergyJournal::count_missed_edges(uint64_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.missed_edges += count;
}

void EnergyJournal::count_error(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.errors[text];
}

void EnergyJournal::count_time(int64_t cpu_ns, int64_t blocked_ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_.cpu_ns = cpu_ns;
  stats_.blocked_ns += blocked_ns;
}

void EnergyJournal::mark_lost(int16_t device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  DeviceState& state = devices_[static_cast<size_t>(device)];
  if (!state.is_lost) stats_.devices_lost.push_back(device);
  state.is_lost = true;
}

bool EnergyJournal::is_lost(int16_t device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return devices_[static_cast<size_t>(device)].is_lost;
}

std::vector<LatestReadings> EnergyJournal::latest() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<LatestReadings> all;
  for (const DeviceState& state : devices_) {
    LatestReadings latest;
    latest.index = static_cast<int16_t>(all.size());
    for (const EnergySource source : kPowerSources) {
      if (!latest.power_mw) latest.power_mw = state.power_mw[slot(source)];
    }
    if (state.last_edge) latest.energy_uj = state.last_edge->energy_uj;
    if (state.clocks) {
      latest.sm_mhz = if_readable(state.clocks->sm_mhz);
      latest.temperature_c = if_readable(state.clocks->temperature_c);
    }
    all.push_back(latest);
  }
  return all;
}

EnergySamplerStats EnergyJournal::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  EnergySamplerStats stats = stats_;
  stats.jitter_p50_ns = jitter_.quantile(0.50);
  stats.jitter_p99_ns = jitter_.quantile(0.99);
  stats.jitter_max_ns = jitter_.max_ns();
  return stats;
}

std::optional<double> EnergyJournal::idle_power_mw(int16_t device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (device < 0 || static_cast<size_t>(device) >= devices_.size()) return std::nullopt;
  const DeviceState& state = devices_[static_cast<size_t>(device)];
  if (state.first_idle_edge && state.last_edge->time_ns > state.first_idle_edge->time_ns) {
    return mean_power_mw(static_cast<double>(state.last_edge->energy_uj - state.first_idle_edge->energy_uj),
                         state.last_edge->time_ns - state.first_idle_edge->time_ns);
  }
  for (const EnergySource source :
       {EnergySource::kNvmlPowerSamples, EnergySource::kNvmlPowerInstant, EnergySource::kNvmlPowerAverage}) {
    const Mean& mean = state.idle_power[slot(source)];
    if (mean.count > 0) return mean.sum / static_cast<double>(mean.count);
  }
  return std::nullopt;
}

void EnergyJournal::mark_idle() {
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_start_ns_ = realtime_ns();
  for (DeviceState& state : devices_) {
    state.first_idle_edge.reset();
    state.idle_power = {};
  }
}

}  // namespace qmeter
