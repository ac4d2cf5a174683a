// The part of CUPTI that we use, so that collectors can be tested without it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "abi/cupti.h"

namespace qmeter {

class Cupti {
 public:
  virtual ~Cupti() = default;

  virtual const std::string& path() const noexcept = 0;
  virtual uint32_t version() const noexcept = 0;
  // "CUPTI_ERROR_…" for a result.
  virtual std::string result_name(cupti::Result result) const = 0;

  // Nanoseconds of the clock that stamps activities.
  virtual cupti::Result timestamp(uint64_t* now_ns) const noexcept = 0;
  virtual cupti::Result subscribe(cupti::Subscriber* subscriber) const noexcept = 0;
  virtual cupti::Result unsubscribe(cupti::Subscriber subscriber) const noexcept = 0;
  virtual cupti::Result register_callbacks(cupti::BufferRequested requested,
                                           cupti::BufferCompleted completed) const noexcept = 0;
  virtual cupti::Result enable(cupti::ActivityKind kind) const noexcept = 0;
  virtual cupti::Result disable(cupti::ActivityKind kind) const noexcept = 0;
  virtual cupti::Result set_zeroed_buffers(bool are_zeroed) const noexcept = 0;
  virtual cupti::Result set_flush_period(uint32_t milliseconds) const noexcept = 0;
  virtual cupti::Result flush_all(uint32_t flags) const noexcept = 0;
  virtual cupti::Result next_record(uint8_t* buffer, size_t valid_size,
                                    cupti::Activity** record) const noexcept = 0;
  virtual cupti::Result num_dropped_records(cupti::Context context, uint32_t stream,
                                            size_t* dropped) const noexcept = 0;
};

// The real one. Throws Error(kNotFound), Error(kUnsupported) for a missing symbol or a version before 12.0.
std::shared_ptr<const Cupti> load_cupti(const std::string& path_or_soname, bool only_if_loaded);

}  // namespace qmeter
