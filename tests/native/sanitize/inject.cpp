// Injections that come, go and are switched while kernels keep coming, on a fake libcupti, for the sanitizers
// to watch. Usage: inject FAKE_CUPTI WORK_DIR
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "inject/injection.h"
#include "loaded_fake_cupti.h"
#include "require.h"

namespace {

using namespace qmeter;
using namespace std::chrono_literals;

std::filesystem::path work_dir;

InjectionOptions fresh_options() {
  InjectionOptions options = InjectionOptions::from_environment();
  options.spool_dir = work_dir / "inject";
  options.control_path = work_dir / "inject" / "control";
  options.tracer.buffer_bytes = 64 * 1024;
  std::filesystem::remove_all(options.spool_dir);
  std::filesystem::create_directory(options.spool_dir);
  return options;
}

void write_control(const std::string& path, ControlMode mode) {
  static uint64_t generation = 0;
  ControlBlock block{};
  block.magic = kControlMagic;
  block.version = kControlVersion;
  block.generation = generation += 2;
  block.mode = mode;
  block.on_ns = 3'000'000;
  block.period_ns = 7'000'000;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT, 0644);
  require(fd >= 0 && ::pwrite(fd, &block, sizeof block, 0) == sizeof block, "the control block is written");
  ::close(fd);
}

// Kernels from two threads as long as it lives.
class Storm {
 public:
  Storm() {
    thread_ = std::thread([this] {
      FakeActivity activity{};
      activity.kind = cupti::kActivityConcurrentKernel;
      activity.start = 1000;
      activity.end = 1500;
      activity.name = "_Z6kernelPf";
      while (!is_over_) storm(&activity, 2, 100);
    });
  }
  ~Storm() {
    is_over_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

void require_all_undone() {
  require(get("subscribers") == 0 && get("kinds_enabled") == 0 && get("zeroed_buffers") == 0,
          "all is undone");
  require(get("dirty_buffers") == 0, "buffers are zeroed");
}

// The launcher changes its mind while kernels come.
void switch_modes() {
  reset();
  const InjectionOptions options = fresh_options();
  write_control(options.control_path, ControlMode::kStopped);
  {
    const Storm storm;
    Injection injection(options);
    for (int i = 0; i < 12; ++i) {
      constexpr ControlMode kModes[] = {ControlMode::kRunning, ControlMode::kDutyCycled,
                                        ControlMode::kStopped};
      write_control(options.control_path, kModes[i % 3]);
      std::this_thread::sleep_for(80ms);
    }
    injection.close();
    injection.close();
  }
  require_all_undone();
}

// Programs that end as soon as they have begun.
void come_and_go() {
  reset();
  const InjectionOptions options = fresh_options();
  {
    const Storm storm;
    for (int i = 0; i < 10; ++i) const Injection injection(options);
  }
  require_all_undone();
}

void refuse() {
  reset();
  set("subscribe_result", cupti::kErrorMultipleSubscribersNotSupported);
  {
    const Injection injection(fresh_options());
  }
  require(get("subscribers") == 0, "a refusal leaves nothing behind");
}

void fork_a_child() {
  reset();
  Injection injection(fresh_options());
  const pid_t child = fork();
  if (child == 0) {
    injection.close();
    _exit(injection.is_owner() ? 1 : 0);
  }
  int status = 0;
  require(waitpid(child, &status, 0) == child && status == 0, "the child leaves the injection alone");
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 3, "two arguments: the fake and a folder to work in");
  setenv("QMETER_CUPTI_PATH", argv[1], 1);
  work_dir = argv[2];
  load_fake_cupti(argv[1]);

  switch_modes();
  come_and_go();
  refuse();
  fork_a_child();
  return 0;
}
