// A libcupti.so without a GPU: the calls we use, with the real one's semantics, and the control of
// fake_cupti.h. Built with -DFAKE_CUPTI_OLD it lacks a symbol, as old versions do. The environment variable
// FAKE_CUPTI="name=value,…" sets what fake_cupti_set sets.
#include "fake_cupti.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "abi/cupti_profiler.h"

namespace cupti = qmeter::cupti;

namespace {

constexpr size_t kNumLanes = 16;
constexpr int32_t kKindRuntime = 5;   // of a kind we never ask for
constexpr size_t kRuntimeBytes = 40;  // sizes as in CUDA 13.0

struct Lane {
  std::mutex mutex;
  uint8_t* buffer = nullptr;
  size_t size = 0;
  size_t used = 0;
};

using Settings = std::map<std::string, int64_t>;

const Settings kDefaults = {{"subscribe_result", 0},
                            {"enable_result", 0},
                            {"flush_result", 0},
                            {"version", 130001},
                            {"kernel_record_bytes", 216},
                            {"flush_hang", 0},
                            {"flushes", 0},
                            {"clock_offset_ns", 0},
                            {"subscribers", 0},
                            {"kinds_enabled", 0},
                            {"zeroed_buffers", 0},
                            {"flush_period", 0},
                            {"buffers_out", 0},
                            {"dirty_buffers", 0},
                            {"null_buffers", 0},
                            {"requests", 0},
                            {"pm_chip", 0},
                            {"pm_samples", 100},
                            {"pm_old_first", 0},
                            {"pm_stale", 0},
                            {"pm_hole", 0},
                            {"pm_overflow", 0},
                            {"pm_is_live", 0},
                            {"pm_nan_metric", -1},
                            {"pm_vgpu_support", cupti::kConfigurationSupported},
                            {"pm_initialize_result", 0},
                            {"pm_availability_result", 0},
                            {"pm_enable_result", 0},
                            {"pm_time_trigger_result", 0},
                            {"pm_config_result", 0},
                            {"pm_start_result", 0},
                            {"pm_decode_result", 0},
                            {"pm_evaluate_result", 0},
                            {"pm_hosts", 0},
                            {"pm_enabled", 0},
                            {"pm_starts", 0},
                            {"pm_stops", 0},
                            {"pm_decodes", 0},
                            {"pm_initialized_images", 0},
                            {"pm_sampled", 0},
                            {"pm_repeats", 0},
                            {"pm_lost_configs", 0},
                            {"iterator_result", cupti::kErrorMaxLimitReached}};

struct Fake {
  Fake() {
    const char* environment = std::getenv("FAKE_CUPTI");
    std::istringstream entries(environment != nullptr ? environment : "");
    for (std::string entry; std::getline(entries, entry, ',');) {
      const size_t equals = entry.find('=');
      if (equals != std::string::npos) set(entry.substr(0, equals), std::atoll(entry.c_str() + equals + 1));
    }
  }

  int64_t get(const std::string& name) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = settings.find(name);
    return found != settings.end() ? found->second : -1;
  }

  bool set(const std::string& name, int64_t value) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = settings.find(name);
    if (found != settings.end()) found->second = value;
    return found != settings.end();
  }

  void add(const std::string& name, int64_t value) {
    const std::lock_guard<std::mutex> lock(mutex);
    settings[name] += value;
  }

  std::mutex mutex;
  Settings settings = kDefaults;
  std::array<Lane, kNumLanes> lanes;
  std::atomic<cupti::BufferRequested> requested{nullptr};
  std::atomic<cupti::BufferCompleted> completed{nullptr};
  std::atomic<uint64_t> dropped{0};
  std::atomic<size_t> kernel_bytes{216};
  std::atomic<uint64_t> enabled{0};  // bit mask of kinds
};

// Never destroyed: threads may still be here when the process ends. A forked child has a CUPTI as if freshly
// loaded: the parent's locks may be held by threads that it does not have.
Fake* only = nullptr;
void make_fake() { only = new Fake; }

Fake& fake() {
  static const int is_made = (make_fake(), pthread_atfork(nullptr, nullptr, make_fake));
  static_cast<void>(is_made);
  return *only;
}

size_t record_bytes(int32_t kind) {
  switch (kind) {
    case cupti::kActivityConcurrentKernel:
      return fake().kernel_bytes;
    case cupti::kActivityMemcpy:
    case cupti::kActivityMemcpy2:
      return 96;
    case cupti::kActivityMemset:
      return 88;
    case kKindRuntime:
      return kRuntimeBytes;
    default:
      return 0;
  }
}

void complete(Lane& lane) {
  if (lane.buffer == nullptr) return;
  fake().add("buffers_out", -1);
  fake().completed.load()(nullptr, 0, lane.buffer, lane.size, lane.used);
  lane.buffer = nullptr;
}

bool request(Lane& lane) {
  size_t max_num_records = 0;
  fake().add("requests", 1);
  fake().requested.load()(&lane.buffer, &lane.size, &max_num_records);
  lane.used = 0;
  if (lane.buffer == nullptr) {
    fake().add("null_buffers", 1);
    return false;
  }
  fake().add("buffers_out", 1);
  if (fake().get("zeroed_buffers") == 0) std::memset(lane.buffer, 0, lane.size);
  if (std::any_of(lane.buffer, lane.buffer + lane.size, [](uint8_t byte) { return byte != 0; })) {
    fake().add("dirty_buffers", 1);
  }
  return true;
}

uint8_t* reserve(Lane& lane, size_t size) {
  if (lane.buffer != nullptr && lane.used + size > lane.size) complete(lane);
  if (lane.buffer == nullptr && !request(lane)) return nullptr;
  uint8_t* place = lane.buffer + lane.used;
  lane.used += size;
  return place;
}

void fill_kernel(cupti::ActivityKernel& record, const FakeActivity& from) {
  record.registers_per_thread = from.registers;
  record.device_id = from.device;
  record.stream_id = from.stream;
  record.grid_x = from.grid[0];
  record.grid_y = from.grid[1];
  record.grid_z = from.grid[2];
  record.block_x = from.block[0];
  record.block_y = from.block[1];
  record.block_z = from.block[2];
  record.static_shared_memory = from.static_shared;
  record.dynamic_shared_memory = from.dynamic_shared;
  record.name = from.name;
}

template <typename Record>
void fill_memory(Record& record, const FakeActivity& from) {
  record.device_id = from.device;
  record.stream_id = from.stream;
  record.bytes = from.bytes;
}

template <typename Record>
Record& fill_common(uint8_t* place, const FakeActivity& from, uint64_t nth, uint64_t step_ns) {
  auto& record = *reinterpret_cast<Record*>(place);
  record.start = from.start != 0 ? from.start + nth * step_ns : 0;
  record.end = from.end != 0 ? from.end + nth * step_ns : 0;
  record.correlation_id = from.correlation;
  record.graph_id = from.graph;
  record.graph_node_id = from.graph_node != 0 ? from.graph_node + nth : 0;
  return record;
}

void fill(uint8_t* place, const FakeActivity& from, uint64_t nth, uint64_t step_ns) {
  reinterpret_cast<cupti::Activity*>(place)->kind = from.kind;
  switch (from.kind) {
    case cupti::kActivityConcurrentKernel:
      fill_kernel(fill_common<cupti::ActivityKernel>(place, from, nth, step_ns), from);
      break;
    case cupti::kActivityMemcpy: {
      auto& record = fill_common<cupti::ActivityMemcpy>(place, from, nth, step_ns);
      fill_memory(record, from);
      record.copy_kind = from.copy_kind;
      break;
    }
    case cupti::kActivityMemcpy2: {
      auto& record = fill_common<cupti::ActivityMemcpy2>(place, from, nth, step_ns);
      fill_memory(record, from);
      record.copy_kind = cupti::kMemcpyPtoP;
      break;
    }
    case cupti::kActivityMemset:
      fill_memory(fill_common<cupti::ActivityMemset>(place, from, nth, step_ns), from);
      break;
    default:
      break;
  }
}

bool is_enabled(int32_t kind) { return kind == kKindRuntime || ((fake().enabled >> kind) & 1) != 0; }

}  // namespace

extern "C" {

void fake_cupti_reset() {
  {
    const std::lock_guard<std::mutex> lock(fake().mutex);
    fake().settings = kDefaults;
  }
  fake().dropped = 0;
  fake().kernel_bytes = 216;
  fake().enabled = 0;
  for (Lane& lane : fake().lanes) lane.buffer = nullptr;
}

int fake_cupti_set(const char* name, int64_t value) {
  if (std::string(name) == "kernel_record_bytes") fake().kernel_bytes = static_cast<size_t>(value);
  return fake().set(name, value) ? 1 : 0;
}

int64_t fake_cupti_get(const char* name) { return fake().get(name); }

void fake_cupti_add(const char* name, int64_t amount) { fake().add(name, amount); }

void fake_cupti_emit(const FakeActivity* activity, uint64_t count, uint64_t step_ns) {
  if (!is_enabled(activity->kind)) return;
  const size_t size = record_bytes(activity->kind);
  Lane& lane = fake().lanes.at(static_cast<size_t>(activity->lane));
  const std::lock_guard<std::mutex> lock(lane.mutex);
  for (uint64_t nth = 0; nth < count; ++nth) {
    uint8_t* place = reserve(lane, size);
    if (place == nullptr) {
      ++fake().dropped;
    } else {
      fill(place, *activity, nth, step_ns);
    }
  }
}

int fake_cupti_emit_raw(const uint8_t* records, uint64_t size) {
  Lane& lane = fake().lanes.front();
  const std::lock_guard<std::mutex> lock(lane.mutex);
  complete(lane);
  if (!request(lane) || size > lane.size) return 0;
  lane.used = size;
  std::memcpy(lane.buffer, records, size);
  return 1;
}

void fake_cupti_storm(const FakeActivity* activity, uint32_t num_threads, uint64_t count) {
  std::vector<std::thread> threads;
  for (uint32_t lane = 0; lane < num_threads; ++lane) {
    threads.emplace_back([=] {
      FakeActivity own = *activity;
      own.lane = static_cast<int32_t>(lane);
      own.stream += lane;
      fake_cupti_emit(&own, count, 1000);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void fake_cupti_drop(uint64_t count) { fake().dropped += count; }

cupti::Result cuptiGetVersion(uint32_t* version) {
  *version = static_cast<uint32_t>(fake().get("version"));
  return cupti::kSuccess;
}

cupti::Result cuptiGetResultString(cupti::Result result, const char** name) {
  switch (result) {
    case cupti::kErrorMultipleSubscribersNotSupported:
      *name = "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED";
      return cupti::kSuccess;
    case cupti::kErrorInsufficientPrivileges:
      *name = "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES";
      return cupti::kSuccess;
    case cupti::kErrorInvalidKind:
      *name = "CUPTI_ERROR_INVALID_KIND";
      return cupti::kSuccess;
    default:
      return 1;
  }
}

cupti::Result cuptiGetTimestamp(uint64_t* timestamp) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const int64_t realtime_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  *timestamp = static_cast<uint64_t>(realtime_ns + fake().get("clock_offset_ns"));
  return cupti::kSuccess;
}

cupti::Result cuptiSubscribe(cupti::Subscriber* subscriber, cupti::Callback, void*) {
  const auto result = static_cast<cupti::Result>(fake().get("subscribe_result"));
  if (result != cupti::kSuccess) return result;
  if (fake().get("subscribers") > 0) return cupti::kErrorMultipleSubscribersNotSupported;
  fake().add("subscribers", 1);
  *subscriber = &fake();
  return cupti::kSuccess;
}

cupti::Result cuptiUnsubscribe(cupti::Subscriber) {
  fake().add("subscribers", -1);
  return cupti::kSuccess;
}

cupti::Result cuptiActivityRegisterCallbacks(cupti::BufferRequested requested,
                                             cupti::BufferCompleted completed) {
  fake().requested = requested;
  fake().completed = completed;
  return cupti::kSuccess;
}

cupti::Result cuptiActivityEnable(cupti::ActivityKind kind) {
  // The first kind is granted: what was begun must be undone.
  const auto result = static_cast<cupti::Result>(fake().get("enable_result"));
  if (result != cupti::kSuccess && fake().enabled != 0) return result;
  fake().enabled |= uint64_t{1} << kind;
  fake().add("kinds_enabled", 1);
  return cupti::kSuccess;
}

cupti::Result cuptiActivityDisable(cupti::ActivityKind kind) {
  fake().enabled &= ~(uint64_t{1} << kind);
  fake().add("kinds_enabled", -1);
  return cupti::kSuccess;
}

cupti::Result cuptiActivitySetAttribute(int32_t attribute, size_t* size, void* value) {
  if (attribute != cupti::kAttributeZeroedOutActivityBuffer || *size != 1) return 1;
  fake().set("zeroed_buffers", *static_cast<uint8_t*>(value));
  return cupti::kSuccess;
}

#ifndef FAKE_CUPTI_OLD
cupti::Result cuptiActivityFlushPeriod(uint32_t milliseconds) {
  fake().set("flush_period", milliseconds);
  return cupti::kSuccess;
}
#endif

cupti::Result cuptiActivityFlushAll(uint32_t) {
  fake().add("flushes", 1);
  while (fake().get("flush_hang") != 0) usleep(1000);
  for (Lane& lane : fake().lanes) {
    const std::lock_guard<std::mutex> lock(lane.mutex);
    complete(lane);
  }
  return static_cast<cupti::Result>(fake().get("flush_result"));
}

cupti::Result cuptiActivityGetNextRecord(uint8_t* buffer, size_t valid_size, cupti::Activity** record) {
  uint8_t* next = buffer;
  if (*record != nullptr) {
    next = reinterpret_cast<uint8_t*>(*record) + record_bytes((*record)->kind);
  }
  if (next >= buffer + valid_size) return static_cast<cupti::Result>(fake().get("iterator_result"));
  auto* activity = reinterpret_cast<cupti::Activity*>(next);
  if (record_bytes(activity->kind) == 0) return cupti::kErrorInvalidKind;
  *record = activity;
  return cupti::kSuccess;
}

cupti::Result cuptiActivityGetNumDroppedRecords(cupti::Context, uint32_t, size_t* dropped) {
  *dropped = fake().dropped.exchange(0);
  return cupti::kSuccess;
}

}  // extern "C"
