// Buffers that CUPTI fills with records, and a thread that counts and returns them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "activity_counts.h"
#include "cupti_library.h"

namespace probe {

// There can be one: CUPTI's callbacks carry no user data. It lives as long as the process, since CUPTI may
// call at any time.
class ActivityBuffers {
 public:
  ActivityBuffers(const CuptiLibrary& cupti, size_t buffer_bytes);
  ActivityBuffers(const ActivityBuffers&) = delete;
  ActivityBuffers& operator=(const ActivityBuffers&) = delete;

  // Wait until the thread is through with all buffers CUPTI has handed over. What was counted since the last
  // call.
  ActivityCounts take();

  // Times that CUPTI found the pool empty, so that a buffer had to be made while it waited.
  uint64_t pool_misses();

 private:
  struct Filled {
    uint8_t* buffer;
    size_t valid_bytes;
  };

  static void CUPTIAPI on_request(uint8_t** buffer, size_t* size, size_t* max_records);
  static void CUPTIAPI on_complete(CUcontext context, uint32_t stream, uint8_t* buffer, size_t size,
                                   size_t valid_bytes);
  uint8_t* make_buffer() const;
  void consume();

  const CuptiLibrary& cupti_;
  const size_t buffer_bytes_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::vector<uint8_t*> free_;
  std::deque<Filled> filled_;
  bool is_consuming_ = false;
  uint64_t pool_misses_ = 0;
  ActivityCounts counts_;
};

}  // namespace probe
