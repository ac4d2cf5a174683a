#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/shared_library.h"
#include "driver/nvml.h"

namespace qmeter {
namespace {

constexpr const char* kSoname = "libnvidia-ml.so.1";

int64_t to_integer(nvml::ValueType type, const nvml::Value& value) {
  switch (type) {
    case nvml::kValueDouble:
      return static_cast<int64_t>(value.dVal);
    case nvml::kValueUnsignedInt:
      return value.uiVal;
    case nvml::kValueUnsignedLong:
      return static_cast<int64_t>(value.ulVal);
    case nvml::kValueUnsignedLongLong:
      return static_cast<int64_t>(value.ullVal);
    case nvml::kValueSignedLongLong:
      return value.sllVal;
    case nvml::kValueSignedInt:
      return value.siVal;
    default:
      return 0;
  }
}

template <typename Function, typename... Arguments>
nvml::Return call(Function* function, Arguments... arguments) {
  return function != nullptr ? function(arguments...) : nvml::kErrorFunctionNotFound;
}

template <typename Function, typename... Arguments>
nvml::Return read_text(std::string& text, Function* function, Arguments... arguments) {
  std::array<char, nvml::kTextBytes> buffer{};
  const nvml::Return result = call(function, arguments..., buffer.data(), nvml::kTextBytes);
  if (result == nvml::kSuccess) text = buffer.data();
  return result;
}

// The library's functions. One that an older driver lacks is null, and its calls return
// kErrorFunctionNotFound.
struct Functions {
  const SharedLibrary& library;
  nvml::nvmlErrorString* error_string = library.find<nvml::nvmlErrorString*>("nvmlErrorString");
  nvml::nvmlSystemGetDriverVersion* driver_version =
      library.find<nvml::nvmlSystemGetDriverVersion*>("nvmlSystemGetDriverVersion");
  nvml::nvmlSystemGetNVMLVersion* nvml_version =
      library.find<nvml::nvmlSystemGetNVMLVersion*>("nvmlSystemGetNVMLVersion");
  nvml::nvmlSystemGetCudaDriverVersion_v2* cuda_driver_version =
      library.find<nvml::nvmlSystemGetCudaDriverVersion_v2*>("nvmlSystemGetCudaDriverVersion_v2");
  nvml::nvmlDeviceGetCount_v2* count = library.find<nvml::nvmlDeviceGetCount_v2*>("nvmlDeviceGetCount_v2");
  nvml::nvmlDeviceGetHandleByIndex_v2* handle_by_index =
      library.find<nvml::nvmlDeviceGetHandleByIndex_v2*>("nvmlDeviceGetHandleByIndex_v2");
  nvml::nvmlDeviceGetName* name = library.find<nvml::nvmlDeviceGetName*>("nvmlDeviceGetName");
  nvml::nvmlDeviceGetUUID* uuid = library.find<nvml::nvmlDeviceGetUUID*>("nvmlDeviceGetUUID");
  nvml::nvmlDeviceGetMigMode* mig_mode = library.find<nvml::nvmlDeviceGetMigMode*>("nvmlDeviceGetMigMode");
  nvml::nvmlDeviceGetMemoryInfo* memory_info =
      library.find<nvml::nvmlDeviceGetMemoryInfo*>("nvmlDeviceGetMemoryInfo");
  nvml::nvmlDeviceGetEnforcedPowerLimit* enforced_power_limit =
      library.find<nvml::nvmlDeviceGetEnforcedPowerLimit*>("nvmlDeviceGetEnforcedPowerLimit");
  nvml::nvmlDeviceGetCudaComputeCapability* cuda_compute_capability =
      library.find<nvml::nvmlDeviceGetCudaComputeCapability*>("nvmlDeviceGetCudaComputeCapability");
  nvml::nvmlDeviceGetTotalEnergyConsumption* total_energy_consumption =
      library.find<nvml::nvmlDeviceGetTotalEnergyConsumption*>("nvmlDeviceGetTotalEnergyConsumption");
  nvml::nvmlDeviceGetPowerUsage* power_usage =
      library.find<nvml::nvmlDeviceGetPowerUsage*>("nvmlDeviceGetPowerUsage");
  nvml::nvmlDeviceGetFieldValues* field_values =
      library.find<nvml::nvmlDeviceGetFieldValues*>("nvmlDeviceGetFieldValues");
  nvml::nvmlDeviceGetViolationStatus* violation_status =
      library.find<nvml::nvmlDeviceGetViolationStatus*>("nvmlDeviceGetViolationStatus");
  nvml::nvmlDeviceGetSamples* samples = library.find<nvml::nvmlDeviceGetSamples*>("nvmlDeviceGetSamples");
  nvml::nvmlDeviceGetClockInfo* clock_info =
      library.find<nvml::nvmlDeviceGetClockInfo*>("nvmlDeviceGetClockInfo");
  nvml::nvmlDeviceGetTemperature* temperature =
      library.find<nvml::nvmlDeviceGetTemperature*>("nvmlDeviceGetTemperature");
  nvml::nvmlDeviceGetCurrentClocksEventReasons* event_reasons =
      library.find<nvml::nvmlDeviceGetCurrentClocksEventReasons*>("nvmlDeviceGetCurrentClocksEventReasons");
  // Before driver 535 the call had this name.
  nvml::nvmlDeviceGetCurrentClocksThrottleReasons* throttle_reasons =
      library.find<nvml::nvmlDeviceGetCurrentClocksThrottleReasons*>(
          "nvmlDeviceGetCurrentClocksThrottleReasons");
};

struct ThrottleField {
  unsigned field;
  int64_t NvmlThrottleTimes::* time_ns;
};

std::vector<ThrottleField> throttle_fields(int cuda_driver_version) {
  constexpr int kCuda13 = 13000;
  if (cuda_driver_version < kCuda13) {
    return {{nvml::kPowerCapTimeField, &NvmlThrottleTimes::power_ns},
            {nvml::kThermalPolicyTimeField, &NvmlThrottleTimes::thermal_ns}};
  }
  return {{nvml::kPowerCapTimeField, &NvmlThrottleTimes::power_ns},
          {nvml::kPowerBrakeTimeField, &NvmlThrottleTimes::power_ns},
          {nvml::kSoftwareThermalTimeField, &NvmlThrottleTimes::thermal_ns},
          {nvml::kHardwareThermalTimeField, &NvmlThrottleTimes::thermal_ns}};
}

class NvmlLibrary final : public Nvml {
 public:
  explicit NvmlLibrary(const std::string& path) : library_(path.empty() ? kSoname : path) {
    const auto init = library_.require<nvml::nvmlInit_v2*>("nvmlInit_v2");
    shutdown_ = library_.require<nvml::nvmlShutdown*>("nvmlShutdown");
    const nvml::Return result = init();
    if (result != nvml::kSuccess) {
      const bool is_forbidden = result == nvml::kErrorNoPermission;
      throw Error(is_forbidden ? ErrorCode::kForbidden : ErrorCode::kUnsupported,
                  library_.path() + ": nvmlInit: " + NvmlLibrary::error_text(result));
    }
  }

  ~NvmlLibrary() override { shutdown_(); }

  std::string path() const override { return library_.path(); }

  std::string driver_version() override {
    std::string version;
    read_text(version, functions_.driver_version);
    return version;
  }

  std::string nvml_version() override {
    std::string version;
    read_text(version, functions_.nvml_version);
    return version;
  }

  int cuda_driver_version() override {
    int version = 0;
    return call(functions_.cuda_driver_version, &version) == nvml::kSuccess ? version : 0;
  }

  std::string error_text(nvml::Return code) override {
    if (code == nvml::kErrorFunctionNotFound || functions_.error_string == nullptr) {
      return code == nvml::kErrorFunctionNotFound ? "this driver has no such call"
                                                  : "error " + std::to_string(code);
    }
    return functions_.error_string(code);
  }

  nvml::Return device_count(unsigned& count) override { return call(functions_.count, &count); }

  nvml::Return device(unsigned index, nvml::Device& device) override {
    return call(functions_.handle_by_index, index, &device);
  }

  nvml::Return name(nvml::Device device, std::string& name) override {
    return read_text(name, functions_.name, device);
  }

  nvml::Return uuid(nvml::Device device, std::string& uuid) override {
    return read_text(uuid, functions_.uuid, device);
  }

  nvml::Return mig_mode(nvml::Device device, bool& is_enabled) override {
    unsigned current = 0;
    unsigned pending = 0;
    const nvml::Return result = call(functions_.mig_mode, device, &current, &pending);
    is_enabled = result == nvml::kSuccess && current == nvml::kMigEnabled;
    return result;
  }

  nvml::Return memory_bytes(nvml::Device device, uint64_t& total) override {
    nvml::Memory memory{};
    const nvml::Return result = call(functions_.memory_info, device, &memory);
    total = memory.total;
    return result;
  }

  nvml::Return power_limit(nvml::Device device, unsigned& limit_mw) override {
    return call(functions_.enforced_power_limit, device, &limit_mw);
  }

  nvml::Return compute_capability(nvml::Device device, int& major, int& minor) override {
    return call(functions_.cuda_compute_capability, device, &major, &minor);
  }

  nvml::Return total_energy(nvml::Device device, uint64_t& energy_mj) override {
    unsigned long long energy = 0;
    const nvml::Return result = call(functions_.total_energy_consumption, device, &energy);
    energy_mj = energy;
    return result;
  }

  nvml::Return power_usage(nvml::Device device, int64_t& power_mw) override {
    unsigned power = 0;
    const nvml::Return result = call(functions_.power_usage, device, &power);
    power_mw = power;
    return result;
  }

  nvml::Return power_fields(nvml::Device device, std::vector<NvmlPowerField>& fields) override;
  nvml::Return power_samples(nvml::Device device, int64_t last_seen_us,
                             std::vector<NvmlPowerSample>& samples) override;

  nvml::Return clock(nvml::Device device, int type, unsigned& mhz) override {
    return call(functions_.clock_info, device, type, &mhz);
  }

  nvml::Return temperature(nvml::Device device, unsigned& celsius) override {
    return call(functions_.temperature, device, nvml::kTemperatureGpu, &celsius);
  }

  nvml::Return throttle_reasons(nvml::Device device, uint64_t& reasons) override {
    unsigned long long bits = 0;
    const nvml::Return result = functions_.event_reasons != nullptr
                                    ? functions_.event_reasons(device, &bits)
                                    : call(functions_.throttle_reasons, device, &bits);
    reasons = bits;
    return result;
  }

  nvml::Return throttle_times(nvml::Device device, NvmlThrottleTimes& times) override;

 private:
  nvml::Return violation_time(nvml::Device device, int policy, int64_t& time_ns);

  SharedLibrary library_;
  Functions functions_{library_};
  nvml::nvmlShutdown* shutdown_ = nullptr;
  std::vector<nvml::Sample> ring_;
  const std::vector<ThrottleField> throttle_fields_ = throttle_fields(NvmlLibrary::cuda_driver_version());
};

nvml::Return NvmlLibrary::power_fields(nvml::Device device, std::vector<NvmlPowerField>& fields) {
  std::array<nvml::FieldValue, 4> values{};
  const size_t count = std::min(fields.size(), values.size());
  for (size_t i = 0; i < count; ++i) {
    values[i].fieldId = fields[i].field;
    values[i].scopeId = fields[i].scope;
  }
  const nvml::Return result = call(functions_.field_values, device, static_cast<int>(count), values.data());
  for (size_t i = 0; i < count; ++i) {
    fields[i].result = result != nvml::kSuccess ? result : values[i].nvmlReturn;
    fields[i].power_mw = to_integer(values[i].valueType, values[i].value);
  }
  return result;
}

// Of limits that act at once, each counts.
nvml::Return NvmlLibrary::throttle_times(nvml::Device device, NvmlThrottleTimes& times) {
  times = {};
  std::vector<nvml::FieldValue> values(throttle_fields_.size());
  for (size_t i = 0; i < values.size(); ++i) values[i].fieldId = throttle_fields_[i].field;
  nvml::Return result = call(functions_.field_values, device, static_cast<int>(values.size()), values.data());
  if (result == nvml::kErrorGpuIsLost) return result;
  for (size_t i = 0; result == nvml::kSuccess && i < values.size(); ++i) {
    if (values[i].nvmlReturn != nvml::kSuccess) continue;
    int64_t& time_ns = times.*throttle_fields_[i].time_ns;
    time_ns = std::max<int64_t>(time_ns, 0) + to_integer(values[i].valueType, values[i].value);
  }
  if (times.power_ns < 0) result = violation_time(device, nvml::kPolicyPower, times.power_ns);
  if (times.thermal_ns < 0) result = violation_time(device, nvml::kPolicyThermal, times.thermal_ns);
  return times.power_ns >= 0 || times.thermal_ns >= 0 ? nvml::kSuccess : result;
}

// The call of drivers without those fields; CUDA 14 is to remove it.
nvml::Return NvmlLibrary::violation_time(nvml::Device device, int policy, int64_t& time_ns) {
  nvml::ViolationTime violation{};
  const nvml::Return result = call(functions_.violation_status, device, policy, &violation);
  if (result == nvml::kSuccess) time_ns = static_cast<int64_t>(violation.violationTime);
  return result;
}

nvml::Return NvmlLibrary::power_samples(nvml::Device device, int64_t last_seen_us,
                                        std::vector<NvmlPowerSample>& samples) {
  samples.clear();
  nvml::ValueType type = nvml::kValueUnsignedInt;
  unsigned count = 0;
  const auto last_seen = static_cast<unsigned long long>(last_seen_us);
  if (ring_.empty()) {  // a call without a buffer returns the ring's size
    const nvml::Return result =
        call(functions_.samples, device, nvml::kTotalPowerSamples, 0ULL, &type, &count, nullptr);
    if (result != nvml::kSuccess) return result;
    ring_.resize(std::max(count, 1u) * 2);
  }
  count = static_cast<unsigned>(ring_.size());
  const nvml::Return result =
      call(functions_.samples, device, nvml::kTotalPowerSamples, last_seen, &type, &count, ring_.data());
  if (result == nvml::kErrorNotFound) return nvml::kSuccess;  // nothing newer
  if (result != nvml::kSuccess) return result;
  for (unsigned i = 0; i < std::min<size_t>(count, ring_.size()); ++i) {
    const auto time_us = static_cast<int64_t>(ring_[i].timeStamp);
    if (time_us > last_seen_us) samples.push_back({time_us, to_integer(type, ring_[i].sampleValue)});
  }
  std::sort(samples.begin(), samples.end(),
            [](const auto& a, const auto& b) { return a.time_us < b.time_us; });
  return nvml::kSuccess;
}

}  // namespace

std::unique_ptr<Nvml> open_nvml(const std::string& path) { return std::make_unique<NvmlLibrary>(path); }

}  // namespace qmeter
