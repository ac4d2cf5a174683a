// Our own minimal declarations of CUPTI's Activity API, version 1. NVIDIA appends to its records and never
// moves a field, so each struct here is the common prefix of all versions since CUPTI 12.0.
// tools/check_abi.py compiles this file against NVIDIA's headers and compares every size, offset and value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qmeter::abi {

using CuptiResult = int32_t;
constexpr CuptiResult kCuptiSuccess = 0;
constexpr CuptiResult kCuptiErrorMaxLimitReached = 12;  // end of a buffer
constexpr CuptiResult kCuptiErrorNotInitialized = 15;
constexpr CuptiResult kCuptiErrorInvalidKind = 21;
constexpr CuptiResult kCuptiErrorInsufficientPrivileges = 35;
constexpr CuptiResult kCuptiErrorMultipleSubscribersNotSupported = 39;
constexpr CuptiResult kCuptiErrorVirtualizedDeviceInsufficientPrivileges = 40;
constexpr CuptiResult kCuptiErrorUnknown = 999;

// cuptiGetVersion: 18 is CUPTI 12.0 and 12.1; from 13.0 on it reads 130000 and the like.
constexpr uint32_t kCuptiOldestVersion = 18;

using CuptiActivityKind = int32_t;
constexpr CuptiActivityKind kCuptiActivityMemcpy = 1;
constexpr CuptiActivityKind kCuptiActivityMemset = 2;
constexpr CuptiActivityKind kCuptiActivityConcurrentKernel = 10;
constexpr CuptiActivityKind kCuptiActivityMemcpy2 = 22;  // between two devices

constexpr int32_t kCuptiAttributeZeroedOutActivityBuffer = 5;  // value: uint8_t
constexpr uint32_t kCuptiFlushForced = 1;

// Directions of a copy, 0 to 10.
constexpr uint8_t kCuptiMemcpyHtoD = 1;
constexpr uint8_t kCuptiMemcpyPtoP = 10;

using CuptiSubscriber = void*;
using CuptiContext = void*;  // CUcontext
using CuptiCallback = void (*)(void* user_data, int32_t domain, uint32_t id, const void* data);
using CuptiBufferRequested = void (*)(uint8_t** buffer, size_t* size, size_t* max_num_records);
using CuptiBufferCompleted = void (*)(CuptiContext context, uint32_t stream, uint8_t* buffer, size_t size,
                                      size_t valid_size);

struct CuptiActivity {
  CuptiActivityKind kind;
};

struct CuptiActivityKernel {  // CUpti_ActivityKernel9 and later
  CuptiActivityKind kind;
  uint8_t cache_config;
  uint8_t shared_memory_config;
  uint16_t registers_per_thread;
  int32_t partitioned_global_cache_requested;
  int32_t partitioned_global_cache_executed;
  uint64_t start;
  uint64_t end;
  uint64_t completed;
  uint32_t device_id;
  uint32_t context_id;
  uint32_t stream_id;
  int32_t grid_x, grid_y, grid_z;
  int32_t block_x, block_y, block_z;
  int32_t static_shared_memory;
  int32_t dynamic_shared_memory;
  uint32_t local_memory_per_thread;
  uint32_t local_memory_total;
  uint32_t correlation_id;
  int64_t grid_id;
  const char* name;
  void* reserved;
  uint64_t queued;
  uint64_t submitted;
  uint8_t launch_type;
  uint8_t is_shared_memory_carveout_requested;
  uint8_t shared_memory_carveout_requested;
  uint8_t padding;
  uint32_t shared_memory_executed;
  uint64_t graph_node_id;
  int32_t shared_memory_limit_config;
  uint32_t graph_id;
};

struct CuptiActivityMemcpy {  // CUpti_ActivityMemcpy5 and later
  CuptiActivityKind kind;
  uint8_t copy_kind;
  uint8_t source_kind;
  uint8_t destination_kind;
  uint8_t flags;
  uint64_t bytes;
  uint64_t start;
  uint64_t end;
  uint32_t device_id;
  uint32_t context_id;
  uint32_t stream_id;
  uint32_t correlation_id;
  uint32_t runtime_correlation_id;
  uint32_t padding;
  void* reserved;
  uint64_t graph_node_id;
  uint32_t graph_id;
};

struct CuptiActivityMemcpy2 {  // CUpti_ActivityMemcpyPtoP4 and later
  CuptiActivityKind kind;
  uint8_t copy_kind;
  uint8_t source_kind;
  uint8_t destination_kind;
  uint8_t flags;
  uint64_t bytes;
  uint64_t start;
  uint64_t end;
  uint32_t device_id;
  uint32_t context_id;
  uint32_t stream_id;
  uint32_t source_device_id;
  uint32_t source_context_id;
  uint32_t destination_device_id;
  uint32_t destination_context_id;
  uint32_t correlation_id;
  void* reserved;
  uint64_t graph_node_id;
  uint32_t graph_id;
};

struct CuptiActivityMemset {  // CUpti_ActivityMemset4 and later
  CuptiActivityKind kind;
  uint32_t value;
  uint64_t bytes;
  uint64_t start;
  uint64_t end;
  uint32_t device_id;
  uint32_t context_id;
  uint32_t stream_id;
  uint32_t correlation_id;
  uint16_t flags;
  uint16_t memory_kind;
  uint32_t padding;
  void* reserved;
  uint64_t graph_node_id;
  uint32_t graph_id;
};

}  // namespace qmeter::abi
