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
  virtual std::string result_name(abi::CuptiResult result) const = 0;

  virtual abi::CuptiResult subscribe(abi::CuptiSubscriber* subscriber) const noexcept = 0;
  virtual abi::CuptiResult unsubscribe(abi::CuptiSubscriber subscriber) const noexcept = 0;
  virtual abi::CuptiResult register_callbacks(abi::CuptiBufferRequested requested,
                                              abi::CuptiBufferCompleted completed) const noexcept = 0;
  virtual abi::CuptiResult enable(abi::CuptiActivityKind kind) const noexcept = 0;
  virtual abi::CuptiResult disable(abi::CuptiActivityKind kind) const noexcept = 0;
  virtual abi::CuptiResult set_zeroed_buffers(bool are_zeroed) const noexcept = 0;
  virtual abi::CuptiResult set_flush_period(uint32_t milliseconds) const noexcept = 0;
  virtual abi::CuptiResult flush_all(uint32_t flags) const noexcept = 0;
  virtual abi::CuptiResult next_record(uint8_t* buffer, size_t valid_size,
                                       abi::CuptiActivity** record) const noexcept = 0;
  virtual abi::CuptiResult num_dropped_records(abi::CuptiContext context, uint32_t stream,
                                               size_t* dropped) const noexcept = 0;
};

// The real one. Throws Error(kNotFound), Error(kUnsupported) for a missing symbol or a version before 12.0.
std::shared_ptr<const Cupti> load_cupti(const std::string& path_or_soname, bool only_if_loaded);

}  // namespace qmeter
