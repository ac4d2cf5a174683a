#include "collect/activity_buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"

namespace qmeter {

ActivityBuffers::ActivityBuffers(size_t buffer_bytes, size_t budget_bytes)
    : buffer_bytes_(buffer_bytes),
      max_buffers_(buffer_bytes > 0 ? budget_bytes / buffer_bytes : 0),
      completed_(max_buffers_) {
  constexpr size_t kSmallestBuffer = 4096;
  if (buffer_bytes < kSmallestBuffer || max_buffers_ == 0) {
    throw Error(ErrorCode::kInvalid, "buffer_bytes must be at least 4096 and fit into buffer_budget_bytes");
  }
  free_.reserve(max_buffers_);
  with_cupti_.reserve(max_buffers_);
}

ActivityBuffers::~ActivityBuffers() {
  while (const auto left = completed_.pop(0)) munmap(left->data, buffer_bytes_);
  for (uint8_t* data : free_) munmap(data, buffer_bytes_);
}

std::optional<int64_t> ActivityBuffers::held_since_ns() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::optional<int64_t> oldest_ns;
  for (const Held& held : with_cupti_) {
    if (!oldest_ns || held.since_ns < *oldest_ns) oldest_ns = held.since_ns;
  }
  return oldest_ns;
}

uint8_t* ActivityBuffers::acquire() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  uint8_t* data = nullptr;
  if (completed_.is_closed()) return nullptr;
  if (!free_.empty()) {
    data = free_.back();
    free_.pop_back();
  } else if (num_mapped_ < max_buffers_) {
    void* mapped = mmap(nullptr, buffer_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped != MAP_FAILED) {
      data = static_cast<uint8_t*>(mapped);
      ++num_mapped_;
    }
  }
  if (data == nullptr) {
    ++stats_.denied;
    return nullptr;
  }
  with_cupti_.push_back({data, monotonic_ns()});
  stats_.in_use_max = std::max<uint64_t>(stats_.in_use_max, num_mapped_ - free_.size());
  return data;
}

void ActivityBuffers::complete(uint8_t* data, size_t valid_bytes) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(with_cupti_.begin(), with_cupti_.end(),
                                  [data](const Held& held) { return held.data == data; });
  if (found == with_cupti_.end()) return;
  *found = with_cupti_.back();
  with_cupti_.pop_back();
  ++num_completed_;
  if (completed_.push({data, std::min(valid_bytes, buffer_bytes_)})) return;
  ++num_recycled_;  // came after the end: nobody will decode it
  munmap(data, buffer_bytes_);
}

void ActivityBuffers::recycle(const ActivityBuffer& buffer) noexcept {
  std::memset(buffer.data, 0, buffer_bytes_);
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(buffer.data);
  ++num_recycled_;
  recycled_.notify_all();
}

bool ActivityBuffers::wait_recycled(int64_t timeout_ns) {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t target = num_completed_;
  return recycled_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                            [&] { return num_recycled_ >= target; });
}

void ActivityBuffers::close() noexcept { completed_.close(); }

ActivityBufferStats ActivityBuffers::stats() const noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

}  // namespace qmeter
