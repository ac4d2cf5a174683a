// How many activity records came, and what was wrong with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>

#include "base/json.h"
#include "cupti_library.h"

namespace probe {

struct ActivityCounts {
  uint64_t kernels = 0;      // of graphs and of eager launches
  uint64_t graph_nodes = 0;  // kernels with a node id
  uint64_t zero = 0;         // kernels that lack a timestamp
  uint64_t reversed = 0;     // kernels that end before they start
  uint64_t dropped = 0;      // records that CUPTI says it dropped
  uint64_t runtime = 0;      // API records
  uint64_t driver = 0;
  std::set<uint64_t> node_ids;

  uint64_t num_bad() const { return zero + reversed + dropped; }

  void count_buffer(const CuptiLibrary& cupti, uint8_t* buffer, size_t valid_bytes);
  void add_to(qmeter::JsonObject& json) const;

 private:
  void count_kernel(const CUpti_ActivityKernel10& kernel);
};

}  // namespace probe
