#include "collect/rapl.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "collect/energy_counter.h"

namespace qmeter {
namespace {

constexpr const char* kZonePrefix = "intel-rapl:";  // AMD's packages bear it too
constexpr const char* kPackagePrefix = "package-";
constexpr size_t kProbeReads = 5;

// The counter steps about every millisecond (Intel SDM, vol. 3, "RAPL Interfaces"): a step is watched for
// with reads this far apart, for at most two steps.
constexpr int64_t kWatchGapNs = 250'000;
constexpr int64_t kWatchNs = 2'000'000;

// An open counter file: reading from the start of it again gives a new value.
class CounterFile {
 public:
  explicit CounterFile(std::string path)
      : path_(std::move(path)), file_(open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) {
      const bool is_forbidden = errno == EACCES || errno == EPERM;
      throw Error(is_forbidden ? ErrorCode::kForbidden : ErrorCode::kIo, path_ + ": " + std::strerror(errno));
    }
  }
  ~CounterFile() { close(file_); }
  CounterFile(const CounterFile&) = delete;
  CounterFile& operator=(const CounterFile&) = delete;

  const std::string& path() const noexcept { return path_; }

  // Empty if the file cannot be read or holds no number.
  std::optional<uint64_t> read() const noexcept {
    std::array<char, 32> text{};
    const ssize_t size = pread(file_, text.data(), text.size() - 1, 0);
    if (size <= 0) return std::nullopt;
    char* end = nullptr;
    const uint64_t value = std::strtoull(text.data(), &end, 10);
    return end != text.data() ? std::optional<uint64_t>(value) : std::nullopt;
  }

 private:
  const std::string path_;
  const int file_;
};

std::string first_line(const std::filesystem::path& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.compare(0, 10, "model name") == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

EnergyDevice cpu_device(int16_t index, const std::string& uuid) {
  EnergyDevice device;
  device.index = index;
  device.kind = "cpu";
  device.name = cpu_model();
  device.uuid = uuid;
  return device;
}

ReadingInfo probe_counter(const std::string& path) {
  ReadingInfo info;
  info.name = "rapl";
  try {
    const CounterFile file(path);
    std::array<int64_t, kProbeReads> costs_ns{};
    for (int64_t& cost_ns : costs_ns) {
      const int64_t start_ns = monotonic_ns();
      if (!file.read()) throw Error(ErrorCode::kIo, path + " holds no number");
      cost_ns = monotonic_ns() - start_ns;
    }
    std::sort(costs_ns.begin(), costs_ns.end());
    info.is_ok = true;
    info.call_cost_ns = costs_ns[kProbeReads / 2];
  } catch (const Error& error) {
    info.reason = error.what();
    if (error.code() == ErrorCode::kForbidden)
      info.reason += "; run as root, or give read permission on that file";
  }
  return info;
}

std::vector<std::filesystem::path> package_zones(const std::string& root) {
  std::vector<std::filesystem::path> zones;
  std::error_code error;  // a root that is not there has no zones
  for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
    const bool is_zone = entry.path().filename().string().rfind(kZonePrefix, 0) == 0;
    if (is_zone && first_line(entry.path() / "name").rfind(kPackagePrefix, 0) == 0)
      zones.push_back(entry.path());
  }
  std::sort(zones.begin(), zones.end());
  return zones;
}

RaplPackage probe_package(const std::filesystem::path& zone, int16_t index) {
  const std::string domain = first_line(zone / "name");
  RaplPackage package;
  package.energy_path = zone / "energy_uj";
  package.range_uj = std::strtoull(first_line(zone / "max_energy_range_uj").c_str(), nullptr, 10);
  package.info = cpu_device(index, host_name() + "/" + domain);
  package.info.properties.emplace_back("domain", domain);
  package.info.properties.emplace_back("zone", zone.filename().string());
  const ReadingInfo counter = probe_counter(package.energy_path);
  if (counter.is_ok) {
    package.info.energy = "rapl";
  } else {
    package.info.reason = counter.reason;
  }
  package.info.readings.push_back(counter);
  return package;
}

// Every period, the next step of the counter is watched for, so that its edge is known to a fraction of a
// millisecond. If it does not come, the change since the period before is the edge, with a bracket as wide as
// that.
class RaplReading final : public EnergyReading {
 public:
  RaplReading(const RaplPackage& package, EnergyJournal& journal, int64_t period_ns)
      : file_(package.energy_path),
        index_(package.info.index),
        journal_(journal),
        period_ns_(period_ns),
        counter_(1, package.range_uj) {}

  int64_t start(int64_t now_ns) override {
    take();
    return now_ns;
  }

  int64_t read(int64_t deadline_ns) override {
    if (!is_watching_) next_period_ns_ = journal_.count_sample(deadline_ns, period_ns_);
    const std::optional<CounterRead> before = last_;
    if (!take()) {
      journal_.count_error(file_.path() + " cannot be read");
      return end_watch();
    }
    const bool is_changed = before && before->value != last_->value;
    const CounterEdge edge{before ? before->before_ns : last_->before_ns, last_->after_ns};
    if (!is_watching_) {
      wide_edge_ = is_changed ? std::optional<CounterEdge>(edge) : std::nullopt;
      watch_end_ns_ = last_->after_ns + kWatchNs;
      is_watching_ = true;
    } else if (is_changed) {
      return record(edge);
    } else if (last_->after_ns >= watch_end_ns_) {
      return wide_edge_ ? record(*wide_edge_) : end_watch();
    }
    return last_->after_ns + kWatchGapNs;
  }

  int64_t finish(int64_t now_ns) override {
    is_finishing_ = true;
    return now_ns;
  }

 private:
  bool take() {
    CounterRead read{monotonic_ns(), 0, 0};
    const std::optional<uint64_t> value = file_.read();
    if (!value) return false;
    read.value = *value;
    read.after_ns = monotonic_ns();
    counter_.update(read.value,
                    read.after_ns);  // going back is a wrap: it happens every few minutes to hours
    last_ = read;
    return true;
  }

  int64_t record(const CounterEdge& edge) {
    journal_.add_edge(index_, EnergySource::kRapl, edge, counter_.energy_uj());
    return end_watch();
  }

  int64_t end_watch() noexcept {
    is_watching_ = false;
    return is_finishing_ ? kNever : next_period_ns_;
  }

  const CounterFile file_;
  const int16_t index_;
  EnergyJournal& journal_;
  const int64_t period_ns_;
  EnergyCounter counter_;
  std::optional<CounterRead> last_;
  std::optional<CounterEdge> wide_edge_;
  bool is_watching_ = false;
  bool is_finishing_ = false;
  int64_t watch_end_ns_ = 0;
  int64_t next_period_ns_ = 0;
};

}  // namespace

std::vector<RaplPackage> probe_rapl(const std::string& powercap_root, int16_t first_index) {
  std::vector<RaplPackage> packages;
  for (const std::filesystem::path& zone : package_zones(powercap_root)) {
    packages.push_back(
        probe_package(zone, static_cast<int16_t>(first_index + static_cast<int16_t>(packages.size()))));
  }
  if (packages.empty()) {
    RaplPackage absent;
    absent.info =
        cpu_without_energy(first_index, "no RAPL package domain under " + powercap_root +
                                            ": a virtual machine, or no intel_rapl driver in this kernel");
    packages.push_back(absent);
  }
  return packages;
}

EnergyDevice cpu_without_energy(int16_t index, const std::string& reason) {
  EnergyDevice device = cpu_device(index, host_name());
  device.reason = reason;
  return device;
}

std::unique_ptr<EnergyReading> make_rapl_reading(const RaplPackage& package, EnergyJournal& journal,
                                                 int64_t period_ns) {
  return std::make_unique<RaplReading>(package, journal, period_ns);
}

}  // namespace qmeter
