#include "inject/control_block.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

namespace qmeter {
namespace {

// The file's block, or nullptr.
const ControlBlock* map_block(const char* path) noexcept {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  struct stat status{};
  void* mapped = MAP_FAILED;
  if (fstat(fd, &status) == 0 && status.st_size >= static_cast<off_t>(sizeof(ControlBlock))) {
    mapped = mmap(nullptr, sizeof(ControlBlock), PROT_READ, MAP_SHARED, fd, 0);
  }
  ::close(fd);
  return mapped != MAP_FAILED ? static_cast<const ControlBlock*>(mapped) : nullptr;
}

void unmap(const ControlBlock* block) noexcept {
  if (block != nullptr) munmap(const_cast<ControlBlock*>(block), sizeof *block);
}

// The generation before and after must be one and even, else the copy may be torn.
bool copy_whole(const ControlBlock& shared, ControlBlock& copy) noexcept {
  const uint64_t before = __atomic_load_n(&shared.generation, __ATOMIC_ACQUIRE);
  std::memcpy(&copy, &shared, sizeof copy);
  std::atomic_thread_fence(std::memory_order_acquire);
  const uint64_t after = __atomic_load_n(&shared.generation, __ATOMIC_RELAXED);
  return before == after && before % 2 == 0;
}

}  // namespace

ControlDemand demand_at(const ControlBlock& block, int64_t realtime_ns) noexcept {
  if (block.mode != ControlMode::kDutyCycled || block.on_ns <= 0 || block.on_ns >= block.period_ns) {
    const bool is_never =
        block.mode == ControlMode::kStopped || (block.mode == ControlMode::kDutyCycled && block.on_ns <= 0);
    return {!is_never, INT64_MAX};
  }
  int64_t into_period_ns = (realtime_ns - block.phase_ns) % block.period_ns;
  if (into_period_ns < 0) into_period_ns += block.period_ns;
  const bool is_on = into_period_ns < block.on_ns;
  return {is_on, realtime_ns - into_period_ns + (is_on ? block.on_ns : block.period_ns)};
}

ControlFile::ControlFile(const std::string& path) noexcept {
  last_.mode = ControlMode::kRunning;
  const ControlBlock* mapped = path.empty() ? nullptr : map_block(path.c_str());
  if (mapped != nullptr && mapped->magic == kControlMagic && mapped->version == kControlVersion) {
    block_ = mapped;
  } else {
    unmap(mapped);
  }
}

ControlFile::~ControlFile() { unmap(block_); }

const ControlBlock& ControlFile::read() noexcept {
  constexpr int kTries = 100;  // the launcher writes for less than a microsecond
  ControlBlock copy{};
  for (int i = 0; block_ != nullptr && i < kTries; ++i) {
    if (!copy_whole(*block_, copy)) continue;
    last_ = copy;
    break;
  }
  return last_;
}

}  // namespace qmeter
