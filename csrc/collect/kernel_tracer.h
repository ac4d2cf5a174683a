// Kernels, copies and memsets of this process into a spool. Constructed = running. In a forked child it is
// inert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/process_guard.h"
#include "collect/activity_buffers.h"
#include "collect/activity_decoder.h"
#include "driver/cupti_search.h"
#include "records/spool.h"

namespace qmeter {

struct KernelTracerOptions {
  size_t buffer_bytes = 4 * 1024 * 1024;  // about 19 000 kernels of 216 bytes
  size_t buffer_budget_bytes = 256 * 1024 * 1024;
  uint32_t flush_period_ms = 1000;
  size_t keep_raw_buffers = 0;  // copies of the first full buffers, for benchmarks and fixtures
  bool is_paused = false;       // begin without recording
  bool has_windows = false;     // write kTraceWindow records even if recording is never paused
};

struct KernelTracerInfo {
  std::string path;
  uint32_t version = 0;
  std::string how;
  std::vector<std::string> kinds;
};

struct KernelTracerStats {
  DecodeCounts counts;
  ActivityBufferStats buffers;
  uint64_t dropped_records = 0;
  uint64_t decode_ns = 0;    // CPU time of the decoder
  uint64_t callback_ns = 0;  // time CUPTI's threads spent in our callbacks
  std::string error;         // first thing that went wrong, empty if nothing

  // As a kStats block: {"name": "kernel_tracer", …}.
  std::string json() const;
};

struct DecodeBenchmark {
  uint64_t records = 0;
  uint64_t raw_bytes = 0;
  double bytes_per_record = 0;  // in memory, decoded
  std::vector<double> seconds;  // CPU time of each repeat
};

class KernelTracer {
 public:
  // `spool` may be null: then activities are decoded and counted only. `found.cupti` must not be null. Throws
  // Error as CuptiSession does.
  KernelTracer(std::shared_ptr<Spool> spool, const CuptiSearch& found, const KernelTracerOptions& options);
  ~KernelTracer();
  KernelTracer(const KernelTracer&) = delete;
  KernelTracer& operator=(const KernelTracer&) = delete;

  KernelTracerInfo info() const;

  // Hand all complete records to the spool. Gives up after 30 seconds, and says so in `stats().error`.
  void flush();

  // Stop recording for a while; CUPTI stays subscribed. Idempotent, and gives up after ten seconds as `flush`
  // does. From the first pause on, the windows in which kernels were recorded are written as kTraceWindow, in
  // pieces that touch.
  void pause();

  // Record again. Idempotent. Throws Error as CuptiSession does, if CUPTI refuses.
  void resume();

  // To be called several times a second where a process may be killed: takes in what CUPTI has held back for
  // 0.3 s and, with `has_windows`, writes the window up to then. Cheap when there is nothing to do.
  void tend();

  KernelTracerStats stats() const;
  std::vector<std::vector<uint8_t>> raw_buffers() const;

  // Decode the kept buffers `repeats` times on this thread. Throws Error(kInvalid) if none were kept.
  DecodeBenchmark benchmark_decode(size_t repeats) const;

  // Flush, disable, unsubscribe. Idempotent.
  void close() noexcept;

 private:
  class Pipeline;
  ProcessGuard guard_;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace qmeter
