// PM sampling on fakes, in bursts and continuous, with questions from other threads and every fault, for the
// sanitizers to watch. Usage: pm_sampler FAKE_CUPTI FAKE_CUDA WORK_DIR
#include "collect/pm_sampler.h"

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>

#include "base/error.h"
#include "loaded_fake_cupti.h"
#include "require.h"

namespace {

using namespace qmeter;

std::string cupti_path;
std::string cuda_path;
std::filesystem::path work_dir;

constexpr int64_t kNumSamples = 3000;
constexpr int kNumBursts = 20;

// No burst of it ends by itself within a test.
PmSamplerOptions large_image() {
  PmSamplerOptions options;
  options.uuid = "GPU-fa4e0000-0000-0000-0000-000000000000";
  options.metrics = {{0, "read.sum", 1.0}, {1, "write.sum", 1.0}, {3, "active.avg", 132.0}};
  options.image_samples = 8192;
  return options;
}

std::shared_ptr<Spool> fresh_spool() {
  const auto path = work_dir / "pm.spool";
  std::filesystem::remove(path);
  return std::make_shared<Spool>(path.string(), "{}", SpoolOptions{});
}

void fresh_fake() {
  reset();
  set("pm_samples", kNumSamples);
}

std::unique_ptr<PmSampler> make_sampler(const PmSamplerOptions& options) {
  return std::make_unique<PmSampler>(fresh_spool(), load_cupti_profiler(cupti_path),
                                     load_cuda_driver(cuda_path), options);
}

// Bursts while others ask, start and stop.
void run_bursts() {
  fresh_fake();
  const auto sampler = make_sampler(large_image());
  std::atomic<bool> is_over{false};
  std::thread asking([&] {
    while (!is_over) {
      sampler->stats();
      sampler->info();
      sampler->start();
    }
  });
  for (int i = 0; i < kNumBursts; ++i) {
    sampler->start();
    sampler->stop();
  }
  is_over = true;
  asking.join();
  sampler->close();
  const PmSamplerStats stats = sampler->stats();
  const auto num_starts = static_cast<uint64_t>(get("pm_starts"));
  require(num_starts >= kNumBursts, "all bursts ran");
  require(stats.counts.samples == num_starts * (kNumSamples - 1), "no sample is lost");
  require(stats.counts.dropped_first == num_starts && stats.error.empty(), "nothing failed");
  require(get("pm_lost_configs") == 0, "the config image lives as long as the session");
}

// Bursts that the sampler ends itself, while others ask.
void sample_live(int64_t interval_ns, uint32_t image_samples, uint64_t num_samples) {
  fresh_fake();
  set("pm_is_live", 1);
  PmSamplerOptions options = large_image();
  options.interval_ns = interval_ns;
  options.image_samples = image_samples;
  const auto sampler = make_sampler(options);
  sampler->start();
  while (sampler->stats().counts.samples < num_samples) sampler->info();
  sampler->close();
  const PmCounts counts = sampler->stats().counts;
  require(counts.bursts == static_cast<uint64_t>(get("pm_starts")), "all bursts ended");
  require(counts.dropped_first <= counts.bursts && counts.decode_failures == 0, "nothing failed");
  require(get("pm_repeats") == 0, "images are empty before they are filled");
}

// A sampler that stops by itself, and one that is destroyed while it samples.
void end_in_other_ways() {
  fresh_fake();
  PmSamplerOptions options = large_image();
  options.max_samples = 100;
  const auto sampler = make_sampler(options);
  sampler->start();
  while (get("pm_stops") == 0) std::this_thread::yield();
  sampler->close();
  require(sampler->stats().counts.samples == 100, "it stopped in time");
  for (int i = 0; i < kNumBursts; ++i) make_sampler(large_image())->start();
  require(get("pm_enabled") == 0 && get("pm_hosts") == 0, "all is undone");
}

void survive(const char* setting, int64_t value) {
  fresh_fake();
  set(setting, value);
  const auto sampler = make_sampler(large_image());
  sampler->start();
  sampler->close();
  const PmCounts counts = sampler->stats().counts;
  const uint64_t num_faults =
      counts.overflows + counts.decode_failures + counts.evaluate_failures + counts.lost_samples;
  require(num_faults > 0, "the fault is counted");
  require(get("pm_enabled") == 0 && get("pm_hosts") == 0, "all is undone");
}

void expect_refusal(const char* setting, int64_t value, ErrorCode code) {
  fresh_fake();
  set(setting, value);
  try {
    make_sampler(large_image());
    require(false, "the sampler is refused");
  } catch (const Error& error) {
    require(error.code() == code, "the refusal has the right code");
  }
  require(get("pm_enabled") == 0 && get("pm_hosts") == 0, "all is undone");
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 4, "three arguments: the fakes and a folder to work in");
  cupti_path = argv[1];
  cuda_path = argv[2];
  work_dir = argv[3];
  load_fake_cupti(argv[1]);

  run_bursts();
  sample_live(10'000, 512, 5000);
  sample_live(1'000'000, 512, 200);
  end_in_other_ways();
  survive("pm_overflow", 1);
  survive("pm_hole", 5);
  survive("pm_decode_result", cupti::kErrorUnknown);
  survive("pm_evaluate_result", cupti::kErrorUnknown);
  survive("pm_nan_metric", 1);
  expect_refusal("pm_enable_result", cupti::kErrorInsufficientPrivileges, ErrorCode::kForbidden);
  expect_refusal("pm_enable_result", cupti::kErrorInvalidOperation, ErrorCode::kTaken);
  expect_refusal("pm_availability_result", cupti::kErrorUnknown, ErrorCode::kUnsupported);
  expect_refusal("version", 24, ErrorCode::kUnsupported);
  return 0;
}
