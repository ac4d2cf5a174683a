// Storms and failures of the kernel tracer on a fake libcupti, for the sanitizers to watch. Usage:
// kernel_tracer FAKE_CUPTI WORK_DIR
#include "collect/kernel_tracer.h"

#include <atomic>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "loaded_fake_cupti.h"
#include "require.h"

namespace {

using namespace qmeter;

std::string cupti_path;
std::filesystem::path work_dir;

constexpr uint32_t kNumThreads = 8;
constexpr uint64_t kNumKernels = 2000;

FakeActivity kernel() {
  FakeActivity activity{};
  activity.kind = cupti::kActivityConcurrentKernel;
  activity.start = 1000;
  activity.end = 1500;
  activity.name = "_Z6kernelPf";
  activity.block[0] = 32;
  activity.graph_node = 1;
  return activity;
}

std::shared_ptr<Spool> fresh_spool() {
  const auto path = work_dir / "tracer.spool";
  std::filesystem::remove(path);
  return std::make_shared<Spool>(path.string(), "{}", SpoolOptions{});
}

KernelTracerOptions small_buffers() {
  KernelTracerOptions options;
  options.buffer_bytes = 64 * 1024;
  options.keep_raw_buffers = 2;
  return options;
}

// Kernels from many threads while others flush and ask; all are recorded or counted as dropped.
void run_storm(const KernelTracerOptions& options) {
  reset();
  KernelTracer tracer(fresh_spool(), open_cupti(cupti_path), options);
  std::atomic<bool> is_over{false};
  std::thread asking([&] {
    while (!is_over) {
      tracer.flush();
      tracer.stats();
      tracer.info();
    }
  });
  const FakeActivity activity = kernel();
  storm(&activity, kNumThreads, kNumKernels);
  is_over = true;
  asking.join();
  tracer.close();
  const KernelTracerStats stats = tracer.stats();
  require(stats.counts.kernels + stats.dropped_records == kNumThreads * kNumKernels,
          "all kernels are accounted for");
  require(stats.error.empty(), "nothing failed");
  require(get("dirty_buffers") == 0, "buffers are zeroed");
}

// Tracers come and go while kernels keep coming: callbacks may arrive at any moment.
void come_and_go() {
  reset();
  std::atomic<bool> is_over{false};
  std::thread storming([&] {
    const FakeActivity activity = kernel();
    while (!is_over) storm(&activity, 2, 100);
  });
  for (int i = 0; i < 20; ++i) KernelTracer(fresh_spool(), open_cupti(cupti_path), small_buffers());
  is_over = true;
  storming.join();
}

void expect_refusal(const char* setting, int64_t value, ErrorCode code) {
  reset();
  set(setting, value);
  try {
    const KernelTracer tracer(nullptr, open_cupti(cupti_path), small_buffers());
    require(false, "the tracer is refused");
  } catch (const Error& error) {
    require(error.code() == code, "the refusal has the right code");
  }
  require(get("subscribers") == 0 && get("kinds_enabled") == 0 && get("zeroed_buffers") == 0,
          "all is undone");
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 3, "two arguments: the fake and a folder to work in");
  cupti_path = argv[1];
  work_dir = argv[2];
  load_fake_cupti(argv[1]);

  run_storm(small_buffers());
  KernelTracerOptions tight = small_buffers();
  tight.buffer_budget_bytes = 3 * tight.buffer_bytes;
  run_storm(tight);
  come_and_go();
  expect_refusal("subscribe_result", cupti::kErrorMultipleSubscribersNotSupported, ErrorCode::kTaken);
  expect_refusal("enable_result", cupti::kErrorInsufficientPrivileges, ErrorCode::kForbidden);
  expect_refusal("version", 17, ErrorCode::kUnsupported);
  return 0;
}
