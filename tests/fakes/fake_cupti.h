// Control of the fake libcupti.so: Python reaches it through ctypes, C++ programs through dlsym.
#pragma once

#include <cstdint>

extern "C" {

// One activity. `kind` is CUPTI's; fields that the kind does not have are ignored.
struct FakeActivity {
  int32_t kind;
  int32_t lane;  // 0 to 15: each lane fills a buffer of its own, as each thread does in CUDA 13
  uint64_t start;
  uint64_t end;
  const char* name;  // passed on as it is: it must outlive the records, as CUPTI's own names do
  int32_t grid[3];
  int32_t block[3];
  int32_t static_shared;
  int32_t dynamic_shared;
  uint32_t device;
  uint32_t stream;
  uint32_t graph;
  uint32_t correlation;
  uint64_t graph_node;
  uint64_t bytes;
  uint16_t registers;
  uint8_t copy_kind;
};

// Back to the state after loading.
void fake_cupti_reset();

// Settings: subscribe_result, enable_result, flush_result, version, kernel_record_bytes, flush_hang (FlushAll
// does not return while it is 1), clock_offset_ns (of cuptiGetTimestamp to CLOCK_REALTIME). Returns 0 if
// there is no such setting.
int fake_cupti_set(const char* name, int64_t value);

// Settings, and: subscribers, kinds_enabled, zeroed_buffers, flush_period, buffers_out, dirty_buffers,
// null_buffers, requests, flushes. -1 if there is no such thing.
int64_t fake_cupti_get(const char* name);

// Of PM sampling can be set: pm_chip (0: GH100, 1: GA100), pm_samples, pm_is_live (samples come as time
// passes), pm_old_first (so many samples of each start begin long ago), pm_stale (so many are a second old),
// pm_hole (samples missing in the middle), pm_overflow (at each decode), pm_nan_metric (its place, -1: none),
// pm_vgpu_support, pm_…_result of initialize, availability, enable, time_trigger, config, start, decode,
// evaluate. Counted are pm_hosts (alive), pm_enabled, pm_starts, pm_stops, pm_sampled (live), pm_decodes,
// pm_repeats (samples decoded into images that were not empty), pm_initialized_images, pm_lost_configs (calls
// that found the config image changed).

// Add to what fake_cupti_get reads.
void fake_cupti_add(const char* name, int64_t amount);

// Put `count` activities into buffers, the n-th shifted in time by n * `step_ns` and with graph_node + n if
// that is not 0. Activities of kinds that are not enabled are ignored, as by the real one.
void fake_cupti_emit(const FakeActivity* activity, uint64_t count, uint64_t step_ns);

// Put records in a buffer of their own, byte by byte as a real CUPTI left them; GetNextRecord walks them by
// the sizes of CUDA 13.0. Returns 0 if no buffer can hold them.
int fake_cupti_emit_raw(const uint8_t* records, uint64_t size);

// `num_threads` threads (at most 16) emit `count` of them each, on lanes 0, 1, …
void fake_cupti_storm(const FakeActivity* activity, uint32_t num_threads, uint64_t count);

// Report `count` dropped records with the next completed buffer.
void fake_cupti_drop(uint64_t count);

}  // extern "C"
