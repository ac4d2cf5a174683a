#include "collect/pm_session.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "base/error.h"
#include "collect/metric_config.h"
#include "driver/cuda_uuid.h"

namespace qmeter {
namespace {

constexpr const char* kPermission =
    "NVIDIA's driver keeps hardware counters to administrators: run as root or with CAP_SYS_ADMIN (in a "
    "container: --cap-add SYS_ADMIN), or load the module nvidia with NVreg_RestrictProfilingToAdminUsers=0";

std::mutex claimed_mutex;
std::set<std::string> claimed;  // UUIDs

cuda::Device find_device(const CudaDriver& cuda, const std::string& uuid) {
  const cuda::Result result = cuda.init();
  int32_t count = 0;
  if (result != cuda::kSuccess || cuda.num_devices(&count) != cuda::kSuccess) {
    throw Error(ErrorCode::kNotFound, "CUDA finds no GPU: " + cuda.result_name(result));
  }
  for (cuda::Device device = 0; device < count; ++device) {
    cuda::Uuid candidate{};
    if (cuda.device_uuid(&candidate, device) == cuda::kSuccess && uuid_text(candidate) == uuid) return device;
  }
  throw Error(ErrorCode::kNotFound,
              "CUDA shows this process no GPU " + uuid + " (CUDA_VISIBLE_DEVICES hides GPUs)");
}

int32_t attribute_of(const CudaDriver& cuda, cuda::DeviceAttribute attribute, cuda::Device device) {
  int32_t value = 0;
  const cuda::Result result = cuda.device_attribute(&value, attribute, device);
  if (result != cuda::kSuccess || value <= 0) {
    throw Error(ErrorCode::kUnsupported, "cuDeviceGetAttribute failed with " + cuda.result_name(result));
  }
  return value;
}

// Turing and GA100 have no trigger of fixed time.
bool has_time_trigger(const std::string& chip) {
  return chip != "GA100" && chip.rfind("TU", 0) != 0 && chip.rfind("GV", 0) != 0;
}

// The SYS clock is not told; it follows the SM clock, whose maximum is. So the interval is nominal.
uint64_t to_cycles(int64_t interval_ns, int32_t clock_khz) {
  constexpr double kKhzNs = 1e6;
  const double cycles = static_cast<double>(interval_ns) * clock_khz / kKhzNs;
  return std::max<uint64_t>(1, static_cast<uint64_t>(cycles + 0.5));
}

const std::string& require_whole_gpu(const std::string& uuid) {
  if (uuid.rfind("MIG-", 0) != 0) return uuid;
  throw Error(ErrorCode::kUnsupported, uuid + " is a MIG instance; PM sampling needs a whole GPU");
}

}  // namespace

PmSession::Claim::Claim(const std::string& uuid) : uuid_(uuid) {
  const std::lock_guard<std::mutex> lock(claimed_mutex);
  if (!claimed.insert(uuid_).second) {
    throw Error(ErrorCode::kTaken, "a PM sampler already runs on " + uuid_ + " in this process");
  }
}

PmSession::Claim::~Claim() {
  const std::lock_guard<std::mutex> lock(claimed_mutex);
  claimed.erase(uuid_);
}

PmSession::PmSession(std::shared_ptr<const CuptiProfiler> profiler, const CudaDriver& cuda,
                     const PmSessionSettings& settings)
    : profiler_(std::move(profiler)),
      claim_(require_whole_gpu(settings.uuid)),
      object_(nullptr, Disable{profiler_.get()}) {
  const cuda::Device device = find_device(cuda, settings.uuid);
  const auto index = static_cast<size_t>(device);
  num_sms_ = attribute_of(cuda, cuda::kAttributeMultiprocessorCount, device);
  require(profiler_->initialize(), "cuptiProfilerInitialize");
  require_support(device);
  require(profiler_->chip_name(chip_, index), "cuptiDeviceGetChipName");
  require(profiler_->counter_availability(availability_, index), "cuptiPmSamplingGetCounterAvailability");
  config_ = single_pass_config(profiler_, chip_, availability_, settings.metrics);
  cupti::PmSamplingObject* object = nullptr;
  require(profiler_->enable(object, index), "cuptiPmSamplingEnable");
  object_.reset(object);
  configure(settings, attribute_of(cuda, cuda::kAttributeClockRate, device));
}

void PmSession::start() { require(profiler_->start(object()), "cuptiPmSamplingStart"); }

cupti::Result PmSession::stop() noexcept { return profiler_->stop(object()); }

void PmSession::require(cupti::Result result, const char* action) const {
  if (result != cupti::kSuccess) refuse(result, action);
}

// Why a device cannot be sampled, in CUPTI's own categories. If it does not say, later calls will.
void PmSession::require_support(cuda::Device device) const {
  cupti::DeviceSupportedParams support;
  if (profiler_->device_support(support, device) != cupti::kSuccess) return;
  if (support.is_supported == cupti::kConfigurationSupported) return;
  if (support.vgpu == cupti::kConfigurationDisabled) {
    throw Error(ErrorCode::kForbidden, "the hypervisor does not permit this vGPU to be profiled");
  }
  const std::pair<cupti::SupportLevel, const char*> reasons[] = {
      {support.architecture, "its architecture"}, {support.sli, "SLI"},
      {support.vgpu, "its kind of vGPU"},         {support.confidential_compute, "confidential computing"},
      {support.cmp, "being a mining processor"},  {support.wsl, "WSL"},
  };
  std::string text;
  for (const auto& [level, name] : reasons) {
    if (level == cupti::kConfigurationUnsupported) text += (text.empty() ? ": " : ", ") + std::string(name);
  }
  throw Error(ErrorCode::kUnsupported, "this GPU cannot be PM-sampled" + text);
}

void PmSession::configure(const PmSessionSettings& settings, int32_t clock_khz) {
  const PmTrigger by_time{cupti::kTriggerTimeInterval, static_cast<uint64_t>(settings.interval_ns)};
  const PmTrigger by_cycles{cupti::kTriggerSysclkInterval, to_cycles(settings.interval_ns, clock_khz)};
  PmSamplingSettings sampling;
  sampling.config = &config_;
  sampling.hardware_buffer_bytes = settings.hardware_buffer_bytes;
  cupti::Result result = cupti::kErrorNotSupported;
  for (const PmTrigger& trigger : {by_time, by_cycles}) {
    if (trigger.mode == cupti::kTriggerTimeInterval && !has_time_trigger(chip_)) continue;
    sampling.trigger = trigger.mode;
    sampling.interval = trigger.interval;
    result = profiler_->configure(object(), sampling);
    trigger_ = trigger;
    if (result == cupti::kSuccess || result == cupti::kErrorOutOfMemory) break;
  }
  require(result, "cuptiPmSamplingSetConfig");
}

void PmSession::refuse(cupti::Result result, const char* action) const {
  const std::string what =
      std::string(action) + " failed with " + profiler_->result_name(result) + " (" + profiler_->path() + ")";
  switch (result) {
    case cupti::kErrorInsufficientPrivileges:
    case cupti::kErrorVirtualizedDeviceInsufficientPrivileges:
      throw Error(ErrorCode::kForbidden, std::string(kPermission) + "; " + what);
    case cupti::kErrorInvalidOperation:
    case cupti::kErrorHardwareBusy:
      throw Error(ErrorCode::kTaken, "another profiler holds the GPU's counters: " + what);
    case cupti::kErrorOutOfMemory:
      throw Error(ErrorCode::kInvalid, "no memory for the hardware buffer: ask for a smaller one; " + what);
    default:
      throw Error(ErrorCode::kUnsupported, what);
  }
}

}  // namespace qmeter
