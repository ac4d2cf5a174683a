// Our own minimal declarations of CUPTI's Activity API, version 1. NVIDIA appends to its records and never
// moves a field, so each struct here is the common prefix of all versions since CUPTI 12.0.
// tools/check_abi.py compiles this file against NVIDIA's headers and compares every size, offset and value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qmeter::cupti {

using Result = int32_t;
constexpr Result kSuccess = 0;
constexpr Result kErrorMaxLimitReached = 12;  // end of a buffer
constexpr Result kErrorInvalidKind = 21;
constexpr Result kErrorInsufficientPrivileges = 35;
constexpr Result kErrorMultipleSubscribersNotSupported = 39;
constexpr Result kErrorVirtualizedDeviceInsufficientPrivileges = 40;
constexpr Result kErrorUnknown = 999;

// CUPTI 12.1 answers 18, though its header lists 12.0 as 19; from 13.0 on it answers 130000 and the like.
constexpr uint32_t kOldestVersion = 18;

using ActivityKind = int32_t;
constexpr ActivityKind kActivityMemcpy = 1;
constexpr ActivityKind kActivityMemset = 2;
constexpr ActivityKind kActivityConcurrentKernel = 10;
constexpr ActivityKind kActivityMemcpy2 = 22;  // between two devices

constexpr int32_t kAttributeZeroedOutActivityBuffer = 5;  // value: uint8_t
constexpr uint32_t kFlushForced = 1;

// Directions of a copy: host, device, array, peer.
constexpr uint8_t kMemcpyUnknown = 0;
constexpr uint8_t kMemcpyHtoD = 1;
constexpr uint8_t kMemcpyDtoH = 2;
constexpr uint8_t kMemcpyHtoA = 3;
constexpr uint8_t kMemcpyAtoH = 4;
constexpr uint8_t kMemcpyAtoA = 5;
constexpr uint8_t kMemcpyAtoD = 6;
constexpr uint8_t kMemcpyDtoA = 7;
constexpr uint8_t kMemcpyDtoD = 8;
constexpr uint8_t kMemcpyHtoH = 9;
constexpr uint8_t kMemcpyPtoP = 10;

using Subscriber = void*;
using Context = void*;  // CUcontext
using Callback = void (*)(void* user_data, int32_t domain, uint32_t id, const void* data);
using BufferRequested = void (*)(uint8_t** buffer, size_t* size, size_t* max_num_records);
using BufferCompleted = void (*)(Context context, uint32_t stream, uint8_t* buffer, size_t size,
                                 size_t valid_size);

struct Activity {
  ActivityKind kind;
};

struct ActivityKernel {  // CUpti_ActivityKernel9 and later
  ActivityKind kind;
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

struct ActivityMemcpy {  // CUpti_ActivityMemcpy5 and later
  ActivityKind kind;
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

struct ActivityMemcpy2 {  // CUpti_ActivityMemcpyPtoP4 and later
  ActivityKind kind;
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

struct ActivityMemset {  // CUpti_ActivityMemset4 and later
  ActivityKind kind;
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

// Functions, by their exported names.
using cuptiGetVersion = Result(uint32_t*);
using cuptiGetResultString = Result(Result, const char**);
using cuptiGetTimestamp = Result(uint64_t*);
using cuptiSubscribe = Result(Subscriber*, Callback, void*);
using cuptiUnsubscribe = Result(Subscriber);
using cuptiActivityRegisterCallbacks = Result(BufferRequested, BufferCompleted);
using cuptiActivityEnable = Result(ActivityKind);
using cuptiActivityDisable = Result(ActivityKind);
using cuptiActivitySetAttribute = Result(int32_t, size_t*, void*);
using cuptiActivityFlushPeriod = Result(uint32_t);
using cuptiActivityFlushAll = Result(uint32_t);
using cuptiActivityGetNextRecord = Result(uint8_t*, size_t, Activity**);
using cuptiActivityGetNumDroppedRecords = Result(Context, uint32_t, size_t*);

}  // namespace qmeter::cupti
