#include "activity_counts.h"

namespace probe {

void ActivityCounts::count_buffer(const CuptiLibrary& cupti, uint8_t* buffer, size_t valid_bytes) {
  CUpti_Activity* record = nullptr;
  while (valid_bytes > 0 && cupti.ActivityGetNextRecord(buffer, valid_bytes, &record) == CUPTI_SUCCESS) {
    switch (record->kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
        count_kernel(*reinterpret_cast<const CUpti_ActivityKernel10*>(record));
        break;
      case CUPTI_ACTIVITY_KIND_RUNTIME:
        ++runtime;
        break;
      case CUPTI_ACTIVITY_KIND_DRIVER:
        ++driver;
        break;
      default:
        break;
    }
  }
}

void ActivityCounts::count_kernel(const CUpti_ActivityKernel10& kernel) {
  ++kernels;
  if (kernel.start == 0 || kernel.end == 0) {
    ++zero;
  } else if (kernel.end < kernel.start) {
    ++reversed;
  }
  if (kernel.graphNodeId != 0) {
    ++graph_nodes;
    node_ids.insert(kernel.graphNodeId);
  }
}

void ActivityCounts::add_to(qmeter::JsonObject& json) const {
  json.add("kernels", kernels).add("graph_nodes", graph_nodes).add("zero", zero).add("reversed", reversed);
  json.add("dropped", dropped).add("runtime", runtime).add("driver", driver);
}

}  // namespace probe
