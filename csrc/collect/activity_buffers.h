// The buffers that CUPTI fills: a pool with a budget, and the queue of full ones. Called from CUPTI's
// callbacks, so nothing here throws or allocates through the C++ heap once constructed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "records/bounded_queue.h"

namespace qmeter {

struct ActivityBuffer {
  uint8_t* data = nullptr;
  size_t valid_bytes = 0;
};

struct ActivityBufferStats {
  uint64_t in_use_max = 0;  // with CUPTI or waiting to be decoded
  uint64_t denied = 0;      // requests beyond the budget; CUPTI drops and counts what it cannot store
};

class ActivityBuffers {
 public:
  // Throws Error(kInvalid) if the budget does not hold one buffer.
  ActivityBuffers(size_t buffer_bytes, size_t budget_bytes);
  // Buffers that CUPTI never gave back stay mapped: it may still write to them.
  ~ActivityBuffers();
  ActivityBuffers(const ActivityBuffers&) = delete;
  ActivityBuffers& operator=(const ActivityBuffers&) = delete;

  size_t buffer_bytes() const noexcept { return buffer_bytes_; }

  // When CUPTI was handed the oldest of the buffers that it still holds (CLOCK_MONOTONIC): records are not
  // older than that. Empty if it holds none.
  std::optional<int64_t> held_since_ns() const;

  // A buffer full of zeros, or nullptr beyond the budget.
  uint8_t* acquire() noexcept;

  // CUPTI gives a buffer back. Unknown ones are ignored: they belong to a tracer before us.
  void complete(uint8_t* data, size_t valid_bytes) noexcept;

  // The next full buffer; nothing after `timeout_ns`, or once closed and empty.
  std::optional<ActivityBuffer> next_completed(int64_t timeout_ns) { return completed_.pop(timeout_ns); }

  // Zero a decoded buffer and return it to the pool.
  void recycle(const ActivityBuffer& buffer) noexcept;

  // Wait until every buffer completed before this call is recycled. False after `timeout_ns`.
  bool wait_recycled(int64_t timeout_ns);

  // No more buffers for CUPTI; what is queued can still be taken.
  void close() noexcept;
  bool is_closed() const noexcept { return completed_.is_closed(); }

  ActivityBufferStats stats() const noexcept;

 private:
  struct Held {
    uint8_t* data;
    int64_t since_ns;
  };

  const size_t buffer_bytes_;
  const size_t max_buffers_;
  mutable std::mutex mutex_;
  std::condition_variable recycled_;
  std::vector<uint8_t*> free_;
  std::vector<Held> with_cupti_;
  size_t num_mapped_ = 0;
  uint64_t num_completed_ = 0;
  uint64_t num_recycled_ = 0;
  ActivityBufferStats stats_;
  BoundedQueue<ActivityBuffer> completed_;
};

}  // namespace qmeter
