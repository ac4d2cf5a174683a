// The control block: 64 bytes that the launcher writes and every traced process maps. It says when to record.
#pragma once

#include <cstdint>
#include <string>

namespace qmeter {

enum class ControlMode : uint32_t { kStopped = 0, kRunning = 1, kDutyCycled = 2 };

constexpr uint32_t kControlMagic = 0x42434D51;  // "QMCB"
constexpr uint32_t kControlVersion = 1;

struct ControlBlock {
  uint32_t magic;
  uint32_t version;
  uint64_t generation;  // odd while the block is being written
  ControlMode mode;
  uint32_t reserved;
  int64_t on_ns;
  int64_t period_ns;
  int64_t phase_ns;  // CLOCK_REALTIME at which a recorded stretch begins, as others do every `period_ns`
  uint64_t unused[2];
};
static_assert(sizeof(ControlBlock) == 64);

// What a control block asks for at a moment.
struct ControlDemand {
  bool is_recording;
  int64_t changes_ns;  // CLOCK_REALTIME; INT64_MAX if it stays so
};

ControlDemand demand_at(const ControlBlock& block, int64_t realtime_ns) noexcept;

class ControlFile {
 public:
  // A path that is empty, or no control block of our version: `is_open` is false.
  explicit ControlFile(const std::string& path) noexcept;
  ~ControlFile();
  ControlFile(const ControlFile&) = delete;
  ControlFile& operator=(const ControlFile&) = delete;

  bool is_open() const noexcept { return words_ != nullptr; }

  // The last whole block that was seen. Without a file: running.
  const ControlBlock& read() noexcept;

 private:
  const uint64_t* words_ = nullptr;  // the block, shared with the launcher
  ControlBlock last_{};
};

}  // namespace qmeter
