#include "collect/energy_sampler.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "collect/energy_nvml.h"
#include "collect/energy_reading.h"
#include "collect/rapl.h"
#include "driver/nvml.h"

namespace qmeter {
namespace {

constexpr int64_t kMinPeriodNs = 1'000'000;
constexpr int64_t kMaxSleepNs = 50'000'000;  // a sleep cannot be woken, and close() waits for it
constexpr int64_t kStatsPeriodNs = 5 * kNsPerSecond;

// Once a second the two clocks, and every few seconds the statistics.
class HousekeepingReading final : public EnergyReading {
 public:
  explicit HousekeepingReading(EnergyJournal& journal) : journal_(journal) {}

  int64_t start(int64_t now_ns) override {
    next_stats_ns_ = now_ns + kStatsPeriodNs;
    return now_ns;
  }

  int64_t read(int64_t deadline_ns) override {
    journal_.add_clock_pair();
    if (deadline_ns >= next_stats_ns_) {
      journal_.add_stats();
      next_stats_ns_ += kStatsPeriodNs;
    }
    return std::max(deadline_ns + kNsPerSecond, monotonic_ns());
  }

  void drain() override { journal_.add_clock_pair(); }

 private:
  EnergyJournal& journal_;
  int64_t next_stats_ns_ = 0;
};

void check_periods(const EnergySamplerOptions& options) {
  const int64_t shortest =
      std::min({options.power_period_ns, options.clock_period_ns, options.edge_period_ns});
  if (shortest < kMinPeriodNs)
    throw Error(ErrorCode::kInvalid, "the energy sampler's periods must be 1 ms or more");
  if (!(options.counter_cpu_share > 0 && options.counter_cpu_share <= 1))
    throw Error(ErrorCode::kInvalid, "the share of a core for energy counters must be over 0 and at most 1");
}

}  // namespace

class EnergySampler::Sampling {
 public:
  Sampling(std::shared_ptr<Spool> spool, const EnergySamplerOptions& options);
  ~Sampling() { close(); }

  const std::vector<EnergyDevice>& sources() const noexcept { return sources_; }
  EnergyJournal& journal() noexcept { return *journal_; }
  void close() noexcept;

 private:
  struct Task {
    int64_t deadline_ns;
    EnergyReading* reading;
  };

  void find_gpus(const EnergySamplerOptions& options);
  void find_cpus(const EnergySamplerOptions& options);
  void make_readings(const EnergySamplerOptions& options);
  void run() noexcept;
  void sample_until_closed();
  void finish();
  void serve(Task& task);
  bool sleep_until(int64_t deadline_ns) const noexcept;
  Task& earliest() noexcept;

  std::unique_ptr<Nvml> nvml_;  // null without NVML
  std::string nvml_error_;
  std::vector<NvmlEnergyDevice> gpus_;
  std::vector<RaplPackage> cpus_;
  std::vector<EnergyDevice> sources_;
  std::unique_ptr<EnergyJournal> journal_;
  std::vector<std::unique_ptr<EnergyReading>> readings_;
  std::vector<Task> tasks_;  // the thread's own
  std::atomic<bool> is_closing_{false};
  std::mutex close_mutex_;
  std::thread thread_;
};

EnergySampler::Sampling::Sampling(std::shared_ptr<Spool> spool, const EnergySamplerOptions& options) {
  check_periods(options);
  find_gpus(options);
  find_cpus(options);
  journal_ = std::make_unique<EnergyJournal>(std::move(spool), sources_.size());
  make_readings(options);
  thread_ = start_thread("qmeter-energy", [this] { run(); });
}

void EnergySampler::Sampling::find_gpus(const EnergySamplerOptions& options) {
  if (!options.use_nvml) {
    nvml_error_ = "NVML is switched off";
    return;
  }
  try {
    nvml_ = open_nvml(options.nvml_path);
    gpus_ = probe_nvml_devices(*nvml_, options.nvml_devices);
  } catch (const Error& error) {
    nvml_error_ = error.what();
  }
  for (const NvmlEnergyDevice& gpu : gpus_) sources_.push_back(gpu.info);
}

void EnergySampler::Sampling::find_cpus(const EnergySamplerOptions& options) {
  const auto first_index = static_cast<int16_t>(sources_.size());
  if (options.use_rapl) {
    cpus_ = probe_rapl(options.powercap_root, first_index);
    for (const RaplPackage& cpu : cpus_) sources_.push_back(cpu.info);
  } else if (gpus_.empty()) {
    sources_.push_back(cpu_without_energy(first_index, "RAPL is switched off"));
  }
  for (size_t i = gpus_.size(); i < sources_.size(); ++i) {
    if (!nvml_error_.empty()) sources_[i].properties.emplace_back("nvml_absent_reason", nvml_error_);
  }
}

void EnergySampler::Sampling::make_readings(const EnergySamplerOptions& options) {
  const NvmlReadingPeriods periods{options.power_period_ns, options.clock_period_ns, options.edge_period_ns,
                                   options.counter_cpu_share};
  for (const NvmlEnergyDevice& gpu : gpus_) {
    for (auto& reading : make_nvml_readings(*nvml_, gpu, *journal_, periods))
      readings_.push_back(std::move(reading));
  }
  for (const RaplPackage& cpu : cpus_) {
    if (!cpu.info.energy.empty())
      readings_.push_back(make_rapl_reading(cpu, *journal_, options.power_period_ns));
  }
  readings_.push_back(std::make_unique<HousekeepingReading>(*journal_));
}

void EnergySampler::Sampling::close() noexcept {
  const std::lock_guard<std::mutex> one_at_a_time(close_mutex_);
  if (!thread_.joinable()) return;
  is_closing_ = true;
  thread_.join();
}

void EnergySampler::Sampling::run() noexcept {
  try {
    sample_until_closed();
    finish();
  } catch (const std::exception& error) {  // no memory: sampling ends, the program goes on
    try {
      journal_->count_error(std::string("the sampler stopped: ") + error.what());
    } catch (...) {
    }
  }
}

void EnergySampler::Sampling::sample_until_closed() {
  const int64_t start_ns = monotonic_ns();
  for (const auto& reading : readings_) tasks_.push_back({reading->start(start_ns), reading.get()});
  while (!is_closing_) {
    Task& next = earliest();
    if (sleep_until(next.deadline_ns)) serve(next);
  }
}

void EnergySampler::Sampling::finish() {
  const int64_t now_ns = monotonic_ns();
  for (Task& task : tasks_) task.deadline_ns = task.reading->finish(now_ns);
  for (Task* next = &earliest(); next->deadline_ns != kNever; next = &earliest()) {
    if (sleep_until(next->deadline_ns)) serve(*next);
  }
  for (const auto& reading : readings_) reading->drain();
  journal_->count_time(thread_cpu_ns(), 0);
  journal_->add_stats();
}

void EnergySampler::Sampling::serve(Task& task) {
  const int64_t start_ns = monotonic_ns();
  const int64_t start_cpu_ns = thread_cpu_ns();
  task.deadline_ns = task.reading->read(task.deadline_ns);
  const int64_t cpu_ns = thread_cpu_ns();
  const int64_t wall_ns = monotonic_ns() - start_ns;
  journal_->count_time(cpu_ns, std::max<int64_t>(0, wall_ns - (cpu_ns - start_cpu_ns)));
}

// Sleep, but not for long: whether the deadline has come.
bool EnergySampler::Sampling::sleep_until(int64_t deadline_ns) const noexcept {
  const int64_t now_ns = monotonic_ns();
  if (deadline_ns <= now_ns) return true;
  const int64_t wake_ns = std::min(deadline_ns, now_ns + kMaxSleepNs);
  timespec wake{};
  wake.tv_sec = static_cast<time_t>(wake_ns / kNsPerSecond);
  wake.tv_nsec = static_cast<long>(wake_ns % kNsPerSecond);
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, nullptr);
  return monotonic_ns() >= deadline_ns;
}

EnergySampler::Sampling::Task& EnergySampler::Sampling::earliest() noexcept {
  return *std::min_element(tasks_.begin(), tasks_.end(),
                           [](const Task& a, const Task& b) { return a.deadline_ns < b.deadline_ns; });
}

EnergySampler::EnergySampler(std::shared_ptr<Spool> spool, const EnergySamplerOptions& options)
    : sampling_(std::make_unique<Sampling>(std::move(spool), options)) {}

EnergySampler::~EnergySampler() {
  if (!guard_.is_owner()) sampling_.release();  // its thread and perhaps its locks are the parent's
}

std::vector<EnergyDevice> EnergySampler::sources() const { return sampling_->sources(); }

std::vector<LatestReadings> EnergySampler::latest() const {
  return guard_.is_owner() ? sampling_->journal().latest() : std::vector<LatestReadings>{};
}

EnergySamplerStats EnergySampler::stats() const {
  return guard_.is_owner() ? sampling_->journal().stats() : EnergySamplerStats{};
}

std::optional<double> EnergySampler::idle_power_mw(int16_t device) const {
  return guard_.is_owner() ? sampling_->journal().idle_power_mw(device) : std::nullopt;
}

void EnergySampler::mark_idle() {
  if (guard_.is_owner()) sampling_->journal().mark_idle();
}

void EnergySampler::close() noexcept {
  if (guard_.is_owner()) sampling_->close();
}

NvmlReport probe_nvml(const std::string& path) {
  NvmlReport report;
  try {
    const std::unique_ptr<Nvml> nvml = open_nvml(path);
    report.path = nvml->path();
    report.driver = nvml->driver_version();
    report.version = nvml->nvml_version();
    for (const NvmlEnergyDevice& device : probe_nvml_devices(*nvml, std::nullopt)) {
      report.devices.push_back(device.info);
    }
  } catch (const Error& error) {
    report.error = error.what();
  }
  return report;
}

}  // namespace qmeter
