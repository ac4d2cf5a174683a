// A queue of fixed capacity between threads. Its storage is made once, so pushing cannot throw.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace qmeter {

template <typename Item>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : ring_(capacity) {}

  // False if the queue is full or closed.
  bool push(Item item) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_closed_ || count_ == ring_.size()) return false;
    ring_[(first_ + count_) % ring_.size()] = std::move(item);
    ++count_;
    changed_.notify_one();
    return true;
  }

  // Nothing after `timeout_ns`, or once the queue is closed and empty.
  std::optional<Item> pop(int64_t timeout_ns) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return count_ > 0 || is_closed_; });
    if (count_ == 0) return std::nullopt;
    Item item = std::move(ring_[first_]);
    first_ = (first_ + 1) % ring_.size();
    --count_;
    return item;
  }

  void close() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closed_ = true;
    changed_.notify_all();
  }

  bool is_closed() const noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return is_closed_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> ring_;
  size_t first_ = 0;
  size_t count_ = 0;
  bool is_closed_ = false;
};

}  // namespace qmeter
