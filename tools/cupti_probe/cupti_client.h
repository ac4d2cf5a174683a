// A client of CUPTI's Activity API, as an injected tracer is one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "activity_buffers.h"
#include "activity_counts.h"
#include "cupti_library.h"
#include "options.h"

namespace probe {

class CuptiClient {
 public:
  // Subscribe. Unless that is all that is asked for, set attributes and register buffers too; no kind is
  // enabled yet. Throws qmeter::Error if CUPTI refuses.
  explicit CuptiClient(const Options& options);
  CuptiClient(const CuptiClient&) = delete;
  CuptiClient& operator=(const CuptiClient&) = delete;

  // Enable or disable the kinds that the options name. Returns the microseconds that took.
  double enable();
  double disable();

  // Forced flush. What was recorded since the last call.
  ActivityCounts drain();

  bool is_recording() const { return buffers_ != nullptr; }
  const CuptiLibrary& library() const { return cupti_; }
  uint64_t pool_misses() { return buffers_->pool_misses(); }
  uint32_t version() const;

 private:
  template <typename Value>
  void set_attribute(CUpti_ActivityAttribute attribute, Value value, const char* name);
  double switch_kinds(bool is_on);
  void switch_launch_records(bool is_on);

  const Options options_;
  const CuptiLibrary cupti_;
  CUpti_SubscriberHandle subscriber_ = nullptr;
  std::unique_ptr<ActivityBuffers> buffers_;
};

// A client that lives as long as the process, since CUPTI may call it at any time.
CuptiClient& make_client(const Options& options);

// As the options ask for: null, subscribed, or with its kinds enabled.
CuptiClient* attach(const Options& options);

}  // namespace probe
