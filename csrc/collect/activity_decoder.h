// From CUPTI's buffers to compact records. Used by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collect/kernel_classes.h"
#include "driver/cupti.h"
#include "records/records.h"

namespace qmeter {

struct DecodeCounts {
  uint64_t kernels = 0;  // passed on, as are the next two
  uint64_t memcpys = 0;
  uint64_t memsets = 0;
  uint64_t graph_nodes = 0;  // of these three, nodes of a replayed graph
  uint64_t zero_timestamps = 0;
  uint64_t reversed_timestamps = 0;
  uint64_t unknown_records = 0;
  uint64_t kernel_record_bytes = 0;  // distance between two kernel records; 0 until seen
  std::string error;                 // first refusal of CUPTI's iterator
};

class ActivityDecoder {
 public:
  ActivityDecoder(std::shared_ptr<const Cupti> cupti, std::shared_ptr<Spool> spool);

  // Append the activities of one buffer to `records`. Records with impossible time stamps and of kinds we did
  // not ask for are counted and left out.
  void decode(uint8_t* buffer, size_t valid_bytes, std::vector<KernelRecord>& records);

  const DecodeCounts& counts() const noexcept { return counts_; }

 private:
  void add_kernel(const cupti::ActivityKernel& activity, std::vector<KernelRecord>& records);
  template <typename Activity>
  void add_memory(const Activity& activity, uint32_t class_id, uint64_t& count,
                  std::vector<KernelRecord>& records);
  bool has_good_times(uint64_t start, uint64_t end) noexcept;
  void note_end(cupti::Result result);

  std::shared_ptr<const Cupti> cupti_;
  KernelClasses classes_;
  DecodeCounts counts_;
};

}  // namespace qmeter
