// Append-only spool writer: any thread appends, one thread of its own writes blocks. In a forked child it is
// inert: ids are 0 and nothing is written, since the file belongs to the parent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/process_guard.h"
#include "records/records.h"

namespace qmeter {

struct SpoolOptions {
  size_t block_bytes = 256 * 1024;
  size_t queue_bytes = 64 * 1024 * 1024;  // beyond it records are dropped and counted, never waited for
  int64_t flush_period_ns = 500'000'000;
};

struct SpoolStats {
  uint64_t blocks = 0;  // written, as are bytes and records
  uint64_t bytes = 0;
  uint64_t records = 0;  // passed to `append`; strings, classes and JSON are not counted
  uint64_t dropped_records = 0;
  std::string error;  // first write error; from then on records are dropped and counted

  // As statistics called "spool". Closing a spool whose writing failed leaves them in it by itself.
  std::string json() const;
};

class Spool {
 public:
  // Create `path` (must not exist) and write the identity block. Throws Error(kIo).
  Spool(const std::string& path, const std::string& identity_json, const SpoolOptions& options);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Stable id of a string; 0 is "". Thread-safe.
  uint32_t intern(const std::string& text);

  // Id of a string that will not come again: nothing of it stays in memory. Thread-safe.
  uint32_t write_string(const std::string& text);

  // Stable id of a kernel class: `record.class_id` is ignored and assigned. Thread-safe.
  uint32_t define_class(ClassRecord record);

  // Append `count` records of `size` bytes each. Never blocks on I/O and never throws: what does not fit the
  // budget is dropped and counted. Thread-safe.
  void append(RecordKind kind, const void* records, size_t size, size_t count) noexcept;

  template <typename Record>
  void append(RecordKind kind, const std::vector<Record>& records) noexcept {
    append(kind, records.data(), sizeof(Record), records.size());
  }

  // Write a kStats block: {"name": name, …} JSON text.
  void append_stats(const std::string& json) noexcept;

  // Return when everything appended so far is on disk.
  void sync() noexcept;

  SpoolStats stats() const;

  // Write what is queued and close the file. Idempotent.
  void close() noexcept;

 private:
  class Writer;
  ProcessGuard guard_;
  std::unique_ptr<Writer> writer_;
};

}  // namespace qmeter
