// Tracing inside somebody else's CUDA program: a spool, a kernel tracer, and a thread that follows the
// control block. Constructed = running. In a forked child it is inert.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/process_guard.h"
#include "collect/kernel_tracer.h"
#include "inject/clock_offsets.h"
#include "inject/control_block.h"
#include "inject/visible_gpus.h"
#include "records/spool.h"

namespace qmeter {

struct InjectionOptions {
  std::string spool_dir;                // empty: nobody wants a trace
  std::string control_path;             // empty: record always
  std::vector<std::string> cupti_dirs;  // where CUPTI may be
  KernelTracerOptions tracer;
  SpoolOptions spool;

  // QMETER_SPOOL_DIR, QMETER_CONTROL and QMETER_CUPTI_DIRS, with what our memory and a SIGKILL may cost.
  static InjectionOptions from_environment();
};

class Injection {
 public:
  // Runs inside cuInit, so it calls no function of the CUDA driver. Without CUPTI, or if that refuses, it
  // only says why in the spool. Throws Error if there can be no spool.
  explicit Injection(const InjectionOptions& options);
  ~Injection() { close(); }
  Injection(const Injection&) = delete;
  Injection& operator=(const Injection&) = delete;

  // Whether this is the process that made it, and not a child that it forked.
  bool is_owner() const noexcept { return guard_.is_owner(); }

  // Flush and end. Idempotent; gives up on a CUPTI or a driver that does not return within ten seconds.
  void close() noexcept;

 private:
  void start_tracer(const InjectionOptions& options);
  void run() noexcept;
  int64_t attend();
  int64_t follow_control();
  void collect_facts();
  std::string stats_json() const;
  void write_stats();

  const ProcessGuard guard_;
  const int64_t start_ns_;
  int64_t end_ns_ = 0;  // the watcher's while that runs, as are all that follow up to the mutex
  std::string error_;
  ControlFile control_;
  bool is_recording_ = false;
  VisibleGpus gpus_;
  ClockOffsets offsets_;
  int64_t facts_due_ns_ = 0;
  int64_t offsets_due_ns_ = 0;
  std::string written_stats_;
  std::shared_ptr<const Cupti> cupti_;
  std::shared_ptr<Spool> spool_;
  std::unique_ptr<KernelTracer> tracer_;  // null if tracing is off

  std::mutex mutex_;  // of the next three
  std::condition_variable changed_;
  bool is_closing_ = false;
  bool is_over_ = false;
  std::thread watcher_;
};

}  // namespace qmeter
