// Tells an object whether it lives in the process that made it. After a fork, the child has copies of our
// objects but none of our threads, and locks may be held by threads it does not have: there, an object must
// do nothing.
#pragma once

#include <cstdint>

namespace qmeter {

class ProcessGuard {
 public:
  ProcessGuard();
  bool is_owner() const noexcept;

 private:
  uint64_t generation_;
};

}  // namespace qmeter
