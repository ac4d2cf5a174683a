#include "inject/control_block.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>

namespace qmeter {
namespace {

constexpr size_t kNumWords = sizeof(ControlBlock) / sizeof(uint64_t);
constexpr size_t kGenerationWord = offsetof(ControlBlock, generation) / sizeof(uint64_t);

// The words of the file's block, or nullptr.
const uint64_t* map_block(const char* path) noexcept {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  struct stat status{};
  void* mapped = MAP_FAILED;
  if (fstat(fd, &status) == 0 && status.st_size >= static_cast<off_t>(sizeof(ControlBlock))) {
    mapped = mmap(nullptr, sizeof(ControlBlock), PROT_READ, MAP_SHARED, fd, 0);
  }
  ::close(fd);
  return mapped != MAP_FAILED ? static_cast<const uint64_t*>(mapped) : nullptr;
}

void unmap(const uint64_t* words) noexcept {
  if (words != nullptr) munmap(const_cast<uint64_t*>(words), sizeof(ControlBlock));
}

// The generation before and after must be one and even, else the copy may be torn. Acquiring loads keep their
// order.
bool copy_whole(const uint64_t* shared, ControlBlock& copy) noexcept {
  std::array<uint64_t, kNumWords> words{};
  const uint64_t before = __atomic_load_n(&shared[kGenerationWord], __ATOMIC_ACQUIRE);
  for (size_t i = 0; i < kNumWords; ++i) words[i] = __atomic_load_n(&shared[i], __ATOMIC_ACQUIRE);
  const uint64_t after = __atomic_load_n(&shared[kGenerationWord], __ATOMIC_ACQUIRE);
  std::memcpy(&copy, words.data(), sizeof copy);
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
  words_ = path.empty() ? nullptr : map_block(path.c_str());
  ControlBlock first{};
  if (words_ != nullptr) std::memcpy(&first, words_, sizeof first);
  if (first.magic == kControlMagic && first.version == kControlVersion) return;
  unmap(words_);
  words_ = nullptr;
}

ControlFile::~ControlFile() { unmap(words_); }

const ControlBlock& ControlFile::read() noexcept {
  constexpr int kTries = 100;  // the launcher writes for less than a microsecond
  ControlBlock copy{};
  for (int i = 0; words_ != nullptr && i < kTries; ++i) {
    if (!copy_whole(words_, copy)) continue;
    last_ = copy;
    break;
  }
  return last_;
}

}  // namespace qmeter
