// Drives the energy sampler through its faults while other threads ask it for readings, for the sanitizers to
// watch. Usage: energy_sampler FAKE_NVML WORK_DIR
#include "collect/energy_sampler.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/clock.h"
#include "fake_nvml.h"
#include "require.h"

namespace {

using namespace qmeter;

std::string nvml_path;
std::filesystem::path work_dir;
decltype(fake_nvml_reset)* reset = nullptr;
decltype(fake_nvml_set)* set = nullptr;

void sleep_ms(int duration) { std::this_thread::sleep_for(std::chrono::milliseconds(duration)); }

EnergySamplerOptions fast_options() {
  EnergySamplerOptions options;
  options.power_period_ns = 5'000'000;
  options.clock_period_ns = 5'000'000;
  options.edge_period_ns = 30'000'000;
  options.nvml_path = nvml_path;
  options.powercap_root = work_dir / "powercap";
  return options;
}

std::shared_ptr<Spool> new_spool(const char* name) {
  std::filesystem::remove(work_dir / name);
  return std::make_shared<Spool>(work_dir / name, "{}", SpoolOptions{});
}

void make_powercap_tree() {
  const std::filesystem::path zone = work_dir / "powercap" / "intel-rapl:0";
  std::filesystem::create_directories(zone);
  std::ofstream(zone / "name") << "package-0\n";
  std::ofstream(zone / "max_energy_range_uj") << "1000000\n";
  std::ofstream(zone / "energy_uj") << "990000\n";
}

// Two GPUs, one of which wraps and is then lost, a package that wraps, and three threads that ask all the
// time.
void sample_under_questions() {
  reset(2);
  for (unsigned device = 0; device < 2; ++device) set(device, "tick_period_ns", 10'000'000);
  set(0, "wrap_mj", 1LL << 32);
  set(0, "start_mj", (1LL << 32) - 10'000);
  set(0, "lost_at_ns", realtime_ns() + 400'000'000);
  const std::shared_ptr<Spool> spool = new_spool("energy-spool");
  EnergySampler sampler(spool, fast_options());
  std::atomic<bool> is_done{false};
  const auto ask = [&] {
    while (!is_done) {
      require(sampler.latest().size() == 3, "two GPUs and a package");
      sampler.stats();
      sampler.idle_power_mw(1);
      sampler.mark_idle();
      sleep_ms(1);
    }
  };
  std::thread first(ask);
  std::thread second(ask);
  std::thread counting([&] {
    for (int i = 0; !is_done; ++i) {
      std::ofstream(work_dir / "powercap" / "intel-rapl:0" / "energy_uj")
          << (990'000 + i * 500) % 1'000'000 << "\n";
      sleep_ms(3);
    }
  });
  sleep_ms(300);
  set(1, "slow_call_ns", 40'000'000);
  sleep_ms(400);
  is_done = true;
  first.join();
  second.join();
  counting.join();
  std::thread closing([&] { sampler.close(); });
  sampler.close();
  closing.join();
  spool->close();
  const EnergySamplerStats stats = sampler.stats();
  require(stats.devices_lost.size() == 1 && stats.devices_lost[0] == 0, "one GPU is lost");
  require(stats.edges > 0 && stats.missed_samples > 0, "edges were seen and samples missed");
  require(spool->stats().records > 0, "records were written");
}

void start_and_stop_at_once() {
  reset(4);
  for (int i = 0; i < 5; ++i) EnergySampler(nullptr, fast_options());
  require(probe_nvml(nvml_path).devices.size() == 4, "four GPUs answer");
  require(!probe_nvml(work_dir / "missing.so").error.empty(), "a missing library is an error");
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 3, "usage: energy_sampler FAKE_NVML WORK_DIR");
  nvml_path = argv[1];
  work_dir = argv[2];
  void* fake = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  require(fake != nullptr, "the fake loads");
  reset = reinterpret_cast<decltype(reset)>(dlsym(fake, "fake_nvml_reset"));
  set = reinterpret_cast<decltype(set)>(dlsym(fake, "fake_nvml_set"));
  make_powercap_tree();
  sample_under_questions();
  start_and_stop_at_once();
  return 0;
}
