// The records of a spool: plain little-endian structs without padding surprises. Each mirrors a table of
// qmeter_native/model/tables.py; storage/spool_records.py holds the same layouts as numpy dtypes, and a test
// compares the two. Times are nanoseconds of CLOCK_REALTIME.
#pragma once

#include <cstdint>

namespace qmeter {

enum class RecordKind : uint16_t {
  kIdentity = 1,     // payload: JSON text
  kStrings = 2,      // payload: {uint32 id, uint32 length, bytes}…
  kClass = 3,        // ClassRecord
  kKernel = 4,       // KernelRecord
  kRange = 5,        // RangeRecord
  kStep = 6,         // StepRecord
  kStepRequest = 7,  // StepRequestRecord
  kRequest = 8,      // RequestRecord
  kOutputToken = 9,  // OutputTokenRecord
  kEnergy = 10,      // EnergyRecord
  kPower = 11,       // PowerRecord
  kClock = 12,       // ClockRecord
  kClockPair = 13,   // ClockPairRecord
  kStats = 14,  // payload: JSON text, the latest statistics of a collector; the last block of a name wins
  kTraceWindow = 15,    // TraceWindowRecord
  kRequestId = 16,      // RequestIdRecord
  kEngineRequest = 17,  // EngineRequestRecord
  kPreemption = 18,     // PreemptionRecord
  kCounter = 19,        // CounterRecord
  kCounterWindow = 20,  // CounterWindowRecord
  kThrottle = 21,       // ThrottleRecord
};

enum class ActivityKind : uint8_t { kKernel = 0, kMemcpy = 1, kMemset = 2, kOperator = 3 };

enum class EnergySource : uint8_t {
  kNvmlTotalEnergy = 0,
  kNvmlPowerInstant = 1,
  kNvmlPowerAverage = 2,
  kNvmlPowerMemoryAverage = 3,
  kNvmlPowerSamples = 4,
  kRapl = 5,
};

#pragma pack(push, 1)

struct ClassRecord {
  uint32_t class_id;
  uint32_t name;  // string id
  uint8_t kind;   // ActivityKind
  int32_t grid_x, grid_y, grid_z;
  int32_t block_x, block_y, block_z;
  int32_t static_shared_bytes;
  int32_t dynamic_shared_bytes;
  int32_t registers;
};

struct KernelRecord {
  int64_t start_ns;
  int64_t end_ns;
  uint32_t class_id;
  int16_t device;
  uint32_t stream;
  uint32_t graph;
  uint64_t graph_node;
  uint32_t correlation;
  uint64_t copied_bytes;
};

struct RangeRecord {
  int64_t start_ns;
  int64_t end_ns;
  uint32_t name;  // string id
  uint32_t thread;
  uint16_t depth;
};

struct StepRecord {
  int64_t step;
  int64_t start_ns;
  int64_t end_ns;
  int16_t device;
  uint32_t stream;
  uint8_t num_markers;
  int32_t num_padded;
};

struct StepRequestRecord {
  int64_t step;
  int32_t request;
  uint8_t phase;
  int32_t num_scheduled;
  int32_t num_cached;
  int32_t num_draft;
  int32_t num_sampled;
  int32_t context_len;
};

struct RequestRecord {
  int32_t request;
  uint32_t name;  // string id
  int64_t send_ns;
  int64_t first_token_ns;
  int64_t last_token_ns;
  int32_t num_prompt_tokens;
  int32_t num_output_tokens;
  uint8_t is_finished;
  uint32_t error;  // string id
};

struct OutputTokenRecord {
  int32_t request;
  int64_t time_ns;
  int32_t num_tokens;
};

struct EnergyRecord {
  int16_t device;
  uint8_t source;  // EnergySource
  int64_t low_ns;
  int64_t high_ns;
  int64_t energy_uj;
};

struct PowerRecord {
  int16_t device;
  uint8_t source;  // EnergySource
  int64_t time_ns;
  int32_t power_mw;
};

struct ClockRecord {
  int16_t device;
  int64_t time_ns;
  int32_t sm_mhz;
  int32_t memory_mhz;
  int16_t temperature_c;
  uint64_t throttle_reasons;
};

struct ClockPairRecord {
  int64_t realtime_ns;
  int64_t monotonic_ns;
};

struct TraceWindowRecord {
  int64_t start_ns;
  int64_t end_ns;
};

struct RequestIdRecord {
  int32_t request;  // number in this process
  uint32_t name;    // string id
};

struct EngineRequestRecord {
  int32_t request;
  int64_t arrival_ns;
  int64_t first_schedule_ns;
  int64_t first_token_ns;
  int64_t finish_ns;
  int32_t num_prompt_tokens;
  int32_t num_cached_tokens;
  int32_t num_output_tokens;
  uint8_t is_finished;
  uint32_t reason;  // string id
};

struct PreemptionRecord {
  int32_t request;
  int64_t time_ns;
};

struct CounterRecord {
  int16_t device;
  uint8_t quantity;  // CounterQuantity of qmeter_native/model/counter_quantity.py
  int64_t start_ns;
  int64_t end_ns;
  double value;
};

struct CounterWindowRecord {
  int16_t device;
  int64_t enable_ns;
  int64_t start_ns;
  int64_t stop_ns;
  int64_t disable_ns;
  int64_t interval_ns;
  int64_t num_samples;
  int64_t num_lost;
};

struct ThrottleRecord {
  int16_t device;
  int64_t time_ns;
  int64_t power_ns;    // -1: not readable
  int64_t thermal_ns;  // -1: not readable
};

#pragma pack(pop)

static_assert(sizeof(ClassRecord) == 45 && sizeof(KernelRecord) == 50 && sizeof(RangeRecord) == 26);
static_assert(sizeof(StepRecord) == 35 && sizeof(StepRequestRecord) == 33 && sizeof(RequestRecord) == 45);
static_assert(sizeof(OutputTokenRecord) == 16 && sizeof(EnergyRecord) == 27 && sizeof(PowerRecord) == 15);
static_assert(sizeof(ClockRecord) == 28 && sizeof(ClockPairRecord) == 16);
static_assert(sizeof(TraceWindowRecord) == 16 && sizeof(RequestIdRecord) == 8);
static_assert(sizeof(EngineRequestRecord) == 53 && sizeof(PreemptionRecord) == 12);
static_assert(sizeof(CounterRecord) == 27 && sizeof(CounterWindowRecord) == 58 &&
              sizeof(ThrottleRecord) == 26);

}  // namespace qmeter
