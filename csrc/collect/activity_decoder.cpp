#include "collect/activity_decoder.h"

#include <utility>

namespace qmeter {

ActivityDecoder::ActivityDecoder(std::shared_ptr<const Cupti> cupti, std::shared_ptr<Spool> spool)
    : cupti_(std::move(cupti)), classes_(std::move(spool)) {}

void ActivityDecoder::decode(uint8_t* buffer, size_t valid_bytes, std::vector<KernelRecord>& records) {
  if (valid_bytes == 0) return;
  classes_.begin_buffer();
  cupti::Activity* activity = nullptr;
  const cupti::Activity* previous = nullptr;
  cupti::Result result = cupti::kSuccess;
  while ((result = cupti_->next_record(buffer, valid_bytes, &activity)) == cupti::kSuccess) {
    if (activity <= previous) break;  // an iterator that stands still would keep us here for ever
    switch (activity->kind) {
      case cupti::kActivityConcurrentKernel:
        if (counts_.kernel_record_bytes == 0 && previous != nullptr && previous->kind == activity->kind) {
          counts_.kernel_record_bytes = static_cast<uint64_t>(reinterpret_cast<const char*>(activity) -
                                                              reinterpret_cast<const char*>(previous));
        }
        add_kernel(*reinterpret_cast<const cupti::ActivityKernel*>(activity), records);
        break;
      case cupti::kActivityMemcpy: {
        const auto& copy = *reinterpret_cast<const cupti::ActivityMemcpy*>(activity);
        add_memory(copy, classes_.memory_copy(copy.copy_kind), counts_.memcpys, records);
        break;
      }
      case cupti::kActivityMemcpy2: {
        const auto& copy = *reinterpret_cast<const cupti::ActivityMemcpy2*>(activity);
        add_memory(copy, classes_.memory_copy(copy.copy_kind), counts_.memcpys, records);
        break;
      }
      case cupti::kActivityMemset: {
        const auto& set = *reinterpret_cast<const cupti::ActivityMemset*>(activity);
        add_memory(set, classes_.memory_set(), counts_.memsets, records);
        break;
      }
      default:
        ++counts_.unknown_records;
    }
    previous = activity;
  }
  note_end(result);
}

void ActivityDecoder::add_kernel(const cupti::ActivityKernel& activity, std::vector<KernelRecord>& records) {
  if (!has_good_times(activity.start, activity.end)) return;
  ++counts_.kernels;
  if (activity.graph_node_id != 0) ++counts_.graph_nodes;
  records.push_back({static_cast<int64_t>(activity.start), static_cast<int64_t>(activity.end),
                     classes_.kernel(activity), static_cast<int16_t>(activity.device_id), activity.stream_id,
                     activity.graph_id, activity.graph_node_id, activity.correlation_id, 0});
}

template <typename Activity>
void ActivityDecoder::add_memory(const Activity& activity, uint32_t class_id, uint64_t& count,
                                 std::vector<KernelRecord>& records) {
  if (!has_good_times(activity.start, activity.end)) return;
  ++count;
  if (activity.graph_node_id != 0) ++counts_.graph_nodes;
  records.push_back({static_cast<int64_t>(activity.start), static_cast<int64_t>(activity.end), class_id,
                     static_cast<int16_t>(activity.device_id), activity.stream_id, activity.graph_id,
                     activity.graph_node_id, activity.correlation_id, activity.bytes});
}

bool ActivityDecoder::has_good_times(uint64_t start, uint64_t end) noexcept {
  if (start != 0 && end >= start) return true;
  (start == 0 || end == 0 ? counts_.zero_timestamps : counts_.reversed_timestamps) += 1;
  return false;
}

void ActivityDecoder::note_end(cupti::Result result) {
  if (result == cupti::kErrorMaxLimitReached || !counts_.error.empty()) return;
  const std::string why = result == cupti::kSuccess ? "it stood still" : cupti_->result_name(result);
  counts_.error = "cuptiActivityGetNextRecord left a buffer early: " + why;
}

}  // namespace qmeter
