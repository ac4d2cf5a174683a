// From the hardware buffer of a session through a counter data image to records in a spool. For one thread at
// a time, where nothing else is said.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "collect/pm_evaluator.h"
#include "collect/pm_session.h"
#include "records/spool.h"

namespace qmeter {

struct PmMetric {
  uint8_t quantity = 0;  // CounterQuantity
  std::string name;
  double factor = 1;  // by which its value is multiplied
};

struct PmDecoderSettings {
  int16_t device = 0;  // for the records
  std::vector<PmMetric> metrics;
  int64_t interval_ns = 0;
  uint32_t image_samples = 2048;
  size_t num_threads = 1;
};

struct PmCounts {
  uint64_t bursts = 0;             // starts of the session that have ended
  uint64_t samples = 0;            // recorded
  uint64_t sampled_ns = 0;         // sum of their lengths
  uint64_t dropped_first = 0;      // first ones of bursts and those before them: of old stamps
  uint64_t dropped_long = 0;       // others that are longer than 1.5 intervals
  uint64_t overflows = 0;          // bursts in which the hardware buffer was full
  uint64_t full_images = 0;        // decodes that filled the image: what did not fit is lost
  uint64_t decode_failures = 0;    // calls that CUPTI refused, and samples with impossible stamps
  uint64_t evaluate_failures = 0;  // samples of which a value is missing
  uint64_t lost_samples = 0;       // by the holes between stamps and at the ends of bursts
  uint64_t decode_ns = 0;          // CPU time, as is the next
  uint64_t evaluate_ns = 0;
};

class PmDecoder {
 public:
  // `session` must outlive this; `spool` may be null. Throws Error(kUnsupported), and std::bad_alloc for an
  // image that does not fit into memory.
  PmDecoder(std::shared_ptr<Spool> spool, const PmSession& session, const PmDecoderSettings& settings);

  size_t image_bytes() const noexcept { return image_.size(); }

  // From here on, `max_samples` are recorded, 0: all.
  void set_limit(uint64_t max_samples) noexcept;

  // How many may still be recorded. Of no use without a limit.
  uint64_t num_left() const noexcept { return max_samples_ - num_recorded_; }

  // Whether the limit is reached.
  bool is_full() const noexcept { return max_samples_ > 0 && num_recorded_ >= max_samples_; }

  // The session starts now.
  void begin_burst(int64_t start_ns) noexcept;

  // Decode all that is in the hardware buffer; what does not fit into the image is lost. Returns the number
  // of samples taken out.
  size_t decode() noexcept;

  // The session was stopped at `stop_ns`, and a decode has brought nothing more.
  void end_burst(int64_t stop_ns) noexcept;

  // For any thread.
  void note_error(const std::string& error) noexcept;
  void note_failure(cupti::Result result, const char* action) noexcept;
  PmCounts counts() const;
  std::string error() const;  // first thing that went wrong, empty if nothing

 private:
  struct Burst {
    int64_t start_ns = 0;
    bool is_first_due = true;
    bool has_overflow = false;
    std::optional<int64_t> last_end_ns;  // of the samples in it
    int64_t interval_ns = 0;
  };

  size_t fill_image() noexcept;
  bool empty_image() noexcept;
  void read_times(size_t num_samples) noexcept;
  void take(size_t num_samples) noexcept;
  bool is_wanted(const PmSampleTimes& times) noexcept;
  bool is_by_time() const noexcept { return session_.trigger().mode == cupti::kTriggerTimeInterval; }
  void record(const PmSampleTimes& times, const double* values);
  void fail(cupti::Result result, const char* action) noexcept;
  void publish() noexcept;

  const std::shared_ptr<Spool> spool_;
  const PmSession& session_;
  const std::shared_ptr<const CuptiProfiler> profiler_;
  const PmDecoderSettings settings_;
  PmEvaluator evaluator_;
  CuptiImage image_;
  bool is_image_empty_ = false;
  std::vector<PmSampleTimes> times_;  // by sample of the image
  std::vector<CounterRecord> records_;
  uint64_t max_samples_ = 0;
  uint64_t num_recorded_ = 0;
  Burst burst_;
  PmCounts pending_;
  mutable std::mutex mutex_;  // of the next two
  PmCounts counts_;
  std::string error_;
};

}  // namespace qmeter
