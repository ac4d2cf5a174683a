#include "cupti_client.h"

#include <vector>

#include "base/clock.h"

namespace probe {
namespace {

// Required by cuptiSubscribe; no callback is ever enabled.
void CUPTIAPI ignore(void*, CUpti_CallbackDomain, CUpti_CallbackId, const void*) {}

}  // namespace

CuptiClient::CuptiClient(const Options& options) : options_(options), cupti_(options.cupti) {
  cupti_.require(cupti_.Subscribe(&subscriber_, ignore, nullptr), "cuptiSubscribe");
  if (options.attach != Attach::kRecording) return;
  if (options.device_buffer_bytes) {
    set_attribute<size_t>(CUPTI_ACTIVITY_ATTR_DEVICE_BUFFER_SIZE, options.device_buffer_bytes,
                          "device buffer size");
  }
  if (options.is_pinned) {
    set_attribute<uint8_t>(CUPTI_ACTIVITY_ATTR_MEM_ALLOCATION_TYPE_HOST_PINNED, 1, "pinned device buffers");
  }
  set_attribute<uint8_t>(CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER, 1, "zeroed buffers");
  buffers_ = std::make_unique<ActivityBuffers>(cupti_, options.activity_buffer_bytes);
  if (options.flush_period_ms) {
    cupti_.require(cupti_.ActivityFlushPeriod(static_cast<uint32_t>(options.flush_period_ms)),
                   "flush period");
  }
}

template <typename Value>
void CuptiClient::set_attribute(CUpti_ActivityAttribute attribute, Value value, const char* name) {
  size_t size = sizeof value;
  cupti_.require(cupti_.ActivitySetAttribute(attribute, &size, &value), name);
}

double CuptiClient::enable() { return switch_kinds(true); }
double CuptiClient::disable() { return switch_kinds(false); }

double CuptiClient::switch_kinds(bool is_on) {
  std::vector<CUpti_ActivityKind> kinds = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL};
  if (options_.records_copies) {
    kinds.insert(kinds.end(),
                 {CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMCPY2, CUPTI_ACTIVITY_KIND_MEMSET});
  }
  const int64_t begin_ns = qmeter::monotonic_ns();
  for (const CUpti_ActivityKind kind : kinds) {
    cupti_.require(is_on ? cupti_.ActivityEnable(kind) : cupti_.ActivityDisable(kind),
                   "activity kind " + std::to_string(kind));
  }
  if (options_.records_launches) switch_launch_records(is_on);
  return static_cast<double>(qmeter::monotonic_ns() - begin_ns) * 1e-3;
}

// Libraries launch through the runtime or through the driver, so both are needed.
void CuptiClient::switch_launch_records(bool is_on) {
  for (const CUpti_CallbackId id :
       {CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernelExC_v11060,
        CUPTI_RUNTIME_TRACE_CBID___cudaLaunchKernel_v13000,
        CUPTI_RUNTIME_TRACE_CBID_cudaGraphLaunch_v10000}) {
    cupti_.require(cupti_.ActivityEnableRuntimeApi(id, is_on), "runtime launch records");
  }
  for (const CUpti_CallbackId id :
       {CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel, CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx,
        CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch}) {
    cupti_.require(cupti_.ActivityEnableDriverApi(id, is_on), "driver launch records");
  }
}

ActivityCounts CuptiClient::drain() {
  cupti_.require(cupti_.ActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "cuptiActivityFlushAll");
  return buffers_->take();
}

uint32_t CuptiClient::version() const {
  uint32_t version = 0;
  cupti_.require(cupti_.GetVersion(&version), "cuptiGetVersion");
  return version;
}

CuptiClient& make_client(const Options& options) { return *new CuptiClient(options); }

CuptiClient* attach(const Options& options) {
  if (options.attach == Attach::kNone) return nullptr;
  CuptiClient& client = make_client(options);
  if (client.is_recording()) client.enable();
  return &client;
}

}  // namespace probe
