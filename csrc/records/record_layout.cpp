#include "records/record_layout.h"

#include <cstddef>
#include <type_traits>

namespace qmeter {
namespace {

template <typename Field>
constexpr const char* numpy_format() {
  static_assert(std::is_integral_v<Field> || std::is_same_v<Field, double>);
  if (std::is_same_v<Field, double>) return "<f8";
  constexpr const char* kSigned[] = {"", "<i1", "<i2", "", "<i4", "", "", "", "<i8"};
  constexpr const char* kUnsigned[] = {"", "<u1", "<u2", "", "<u4", "", "", "", "<u8"};
  return std::is_signed_v<Field> ? kSigned[sizeof(Field)] : kUnsigned[sizeof(Field)];
}

}  // namespace

#define QMETER_FIELD(Record, name) {#name, numpy_format<decltype(Record::name)>(), offsetof(Record, name)}

const std::vector<RecordLayout>& record_layouts() {
  static const std::vector<RecordLayout> layouts = {
      {"class",
       RecordKind::kClass,
       sizeof(ClassRecord),
       {QMETER_FIELD(ClassRecord, class_id), QMETER_FIELD(ClassRecord, name), QMETER_FIELD(ClassRecord, kind),
        QMETER_FIELD(ClassRecord, grid_x), QMETER_FIELD(ClassRecord, grid_y),
        QMETER_FIELD(ClassRecord, grid_z), QMETER_FIELD(ClassRecord, block_x),
        QMETER_FIELD(ClassRecord, block_y), QMETER_FIELD(ClassRecord, block_z),
        QMETER_FIELD(ClassRecord, static_shared_bytes), QMETER_FIELD(ClassRecord, dynamic_shared_bytes),
        QMETER_FIELD(ClassRecord, registers)}},
      {"kernel",
       RecordKind::kKernel,
       sizeof(KernelRecord),
       {QMETER_FIELD(KernelRecord, start_ns), QMETER_FIELD(KernelRecord, end_ns),
        QMETER_FIELD(KernelRecord, class_id), QMETER_FIELD(KernelRecord, device),
        QMETER_FIELD(KernelRecord, stream), QMETER_FIELD(KernelRecord, graph),
        QMETER_FIELD(KernelRecord, graph_node), QMETER_FIELD(KernelRecord, correlation),
        QMETER_FIELD(KernelRecord, copied_bytes)}},
      {"range",
       RecordKind::kRange,
       sizeof(RangeRecord),
       {QMETER_FIELD(RangeRecord, start_ns), QMETER_FIELD(RangeRecord, end_ns),
        QMETER_FIELD(RangeRecord, name), QMETER_FIELD(RangeRecord, thread),
        QMETER_FIELD(RangeRecord, depth)}},
      {"step",
       RecordKind::kStep,
       sizeof(StepRecord),
       {QMETER_FIELD(StepRecord, step), QMETER_FIELD(StepRecord, start_ns), QMETER_FIELD(StepRecord, end_ns),
        QMETER_FIELD(StepRecord, device), QMETER_FIELD(StepRecord, stream),
        QMETER_FIELD(StepRecord, num_markers), QMETER_FIELD(StepRecord, num_padded)}},
      {"step_request",
       RecordKind::kStepRequest,
       sizeof(StepRequestRecord),
       {QMETER_FIELD(StepRequestRecord, step), QMETER_FIELD(StepRequestRecord, request),
        QMETER_FIELD(StepRequestRecord, phase), QMETER_FIELD(StepRequestRecord, num_scheduled),
        QMETER_FIELD(StepRequestRecord, num_cached), QMETER_FIELD(StepRequestRecord, num_draft),
        QMETER_FIELD(StepRequestRecord, num_sampled), QMETER_FIELD(StepRequestRecord, context_len)}},
      {"request",
       RecordKind::kRequest,
       sizeof(RequestRecord),
       {QMETER_FIELD(RequestRecord, request), QMETER_FIELD(RequestRecord, name),
        QMETER_FIELD(RequestRecord, send_ns), QMETER_FIELD(RequestRecord, first_token_ns),
        QMETER_FIELD(RequestRecord, last_token_ns), QMETER_FIELD(RequestRecord, num_prompt_tokens),
        QMETER_FIELD(RequestRecord, num_output_tokens), QMETER_FIELD(RequestRecord, is_finished),
        QMETER_FIELD(RequestRecord, error)}},
      {"output_token",
       RecordKind::kOutputToken,
       sizeof(OutputTokenRecord),
       {QMETER_FIELD(OutputTokenRecord, request), QMETER_FIELD(OutputTokenRecord, time_ns),
        QMETER_FIELD(OutputTokenRecord, num_tokens)}},
      {"energy",
       RecordKind::kEnergy,
       sizeof(EnergyRecord),
       {QMETER_FIELD(EnergyRecord, device), QMETER_FIELD(EnergyRecord, source),
        QMETER_FIELD(EnergyRecord, low_ns), QMETER_FIELD(EnergyRecord, high_ns),
        QMETER_FIELD(EnergyRecord, energy_uj)}},
      {"power",
       RecordKind::kPower,
       sizeof(PowerRecord),
       {QMETER_FIELD(PowerRecord, device), QMETER_FIELD(PowerRecord, source),
        QMETER_FIELD(PowerRecord, time_ns), QMETER_FIELD(PowerRecord, power_mw)}},
      {"clock",
       RecordKind::kClock,
       sizeof(ClockRecord),
       {QMETER_FIELD(ClockRecord, device), QMETER_FIELD(ClockRecord, time_ns),
        QMETER_FIELD(ClockRecord, sm_mhz), QMETER_FIELD(ClockRecord, memory_mhz),
        QMETER_FIELD(ClockRecord, temperature_c), QMETER_FIELD(ClockRecord, throttle_reasons)}},
      {"clock_pair",
       RecordKind::kClockPair,
       sizeof(ClockPairRecord),
       {QMETER_FIELD(ClockPairRecord, realtime_ns), QMETER_FIELD(ClockPairRecord, monotonic_ns)}},
      {"trace_window",
       RecordKind::kTraceWindow,
       sizeof(TraceWindowRecord),
       {QMETER_FIELD(TraceWindowRecord, start_ns), QMETER_FIELD(TraceWindowRecord, end_ns)}},
      {"request_id",
       RecordKind::kRequestId,
       sizeof(RequestIdRecord),
       {QMETER_FIELD(RequestIdRecord, request), QMETER_FIELD(RequestIdRecord, name)}},
      {"engine_request",
       RecordKind::kEngineRequest,
       sizeof(EngineRequestRecord),
       {QMETER_FIELD(EngineRequestRecord, request), QMETER_FIELD(EngineRequestRecord, arrival_ns),
        QMETER_FIELD(EngineRequestRecord, first_schedule_ns),
        QMETER_FIELD(EngineRequestRecord, first_token_ns), QMETER_FIELD(EngineRequestRecord, finish_ns),
        QMETER_FIELD(EngineRequestRecord, num_prompt_tokens),
        QMETER_FIELD(EngineRequestRecord, num_cached_tokens),
        QMETER_FIELD(EngineRequestRecord, num_output_tokens), QMETER_FIELD(EngineRequestRecord, is_finished),
        QMETER_FIELD(EngineRequestRecord, reason)}},
      {"preemption",
       RecordKind::kPreemption,
       sizeof(PreemptionRecord),
       {QMETER_FIELD(PreemptionRecord, request), QMETER_FIELD(PreemptionRecord, time_ns)}},
      {"counter",
       RecordKind::kCounter,
       sizeof(CounterRecord),
       {QMETER_FIELD(CounterRecord, device), QMETER_FIELD(CounterRecord, quantity),
        QMETER_FIELD(CounterRecord, start_ns), QMETER_FIELD(CounterRecord, end_ns),
        QMETER_FIELD(CounterRecord, value)}},
      {"counter_window",
       RecordKind::kCounterWindow,
       sizeof(CounterWindowRecord),
       {QMETER_FIELD(CounterWindowRecord, device), QMETER_FIELD(CounterWindowRecord, enable_ns),
        QMETER_FIELD(CounterWindowRecord, start_ns), QMETER_FIELD(CounterWindowRecord, stop_ns),
        QMETER_FIELD(CounterWindowRecord, disable_ns), QMETER_FIELD(CounterWindowRecord, interval_ns),
        QMETER_FIELD(CounterWindowRecord, num_samples), QMETER_FIELD(CounterWindowRecord, num_lost)}},
      {"throttle",
       RecordKind::kThrottle,
       sizeof(ThrottleRecord),
       {QMETER_FIELD(ThrottleRecord, device), QMETER_FIELD(ThrottleRecord, time_ns),
        QMETER_FIELD(ThrottleRecord, power_ns), QMETER_FIELD(ThrottleRecord, thermal_ns)}},
  };
  return layouts;
}

#undef QMETER_FIELD

size_t record_size(RecordKind kind) {
  for (const RecordLayout& layout : record_layouts()) {
    if (layout.kind == kind) return layout.size;
  }
  return 0;
}

}  // namespace qmeter
