#include "activity_buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

namespace probe {
namespace {

constexpr size_t kPoolBytes = 128 << 20;

ActivityBuffers* the_buffers = nullptr;

}  // namespace

ActivityBuffers::ActivityBuffers(const CuptiLibrary& cupti, size_t buffer_bytes)
    : cupti_(cupti), buffer_bytes_(buffer_bytes) {
  const size_t num_buffers = std::max<size_t>(4, kPoolBytes / buffer_bytes);
  for (size_t n = 0; n < num_buffers; ++n) {
    if (uint8_t* buffer = make_buffer()) free_.push_back(buffer);
  }
  the_buffers = this;
  std::thread([this] { consume(); }).detach();
  cupti.require(cupti.ActivityRegisterCallbacks(on_request, on_complete), "cuptiActivityRegisterCallbacks");
}

ActivityCounts ActivityBuffers::take() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return filled_.empty() && !is_consuming_; });
  return std::exchange(counts_, {});
}

uint64_t ActivityBuffers::pool_misses() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return pool_misses_;
}

void CUPTIAPI ActivityBuffers::on_request(uint8_t** buffer, size_t* size, size_t* max_records) {
  ActivityBuffers& self = *the_buffers;
  const std::lock_guard<std::mutex> lock(self.mutex_);
  if (self.free_.empty()) {
    ++self.pool_misses_;
    *buffer = self.make_buffer();
  } else {
    *buffer = self.free_.back();
    self.free_.pop_back();
  }
  *size = *buffer ? self.buffer_bytes_ : 0;
  *max_records = 0;  // as many as fit
}

void CUPTIAPI ActivityBuffers::on_complete(CUcontext context, uint32_t stream, uint8_t* buffer, size_t,
                                           size_t valid_bytes) {
  ActivityBuffers& self = *the_buffers;
  size_t dropped = 0;
  self.cupti_.ActivityGetNumDroppedRecords(context, stream, &dropped);
  const std::lock_guard<std::mutex> lock(self.mutex_);
  self.counts_.dropped += dropped;
  self.filled_.push_back({buffer, valid_bytes});
  self.changed_.notify_all();
}

// Touched at once, so that no page fault falls into a measurement. Null if there is no memory.
uint8_t* ActivityBuffers::make_buffer() const {
  void* memory =
      mmap(nullptr, buffer_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory);
}

// Buffers go back zeroed, as CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER promises.
void ActivityBuffers::consume() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    is_consuming_ = false;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !filled_.empty(); });
    const Filled next = filled_.front();
    filled_.pop_front();
    is_consuming_ = true;
    ActivityCounts counts = std::exchange(counts_, {});
    lock.unlock();
    counts.count_buffer(cupti_, next.buffer, next.valid_bytes);
    std::memset(next.buffer, 0, next.valid_bytes);
    lock.lock();
    counts.dropped += counts_.dropped;  // on_complete may have been called meanwhile
    counts_ = std::move(counts);
    free_.push_back(next.buffer);
  }
}

}  // namespace probe
