// A libnvidia-ml.so for machines without one. Each device draws a constant power plus a square wave; its
// energy counter is the exact integral of that power, published at ticks, and its power ring holds samples of
// the same power. Faults are settings.
#include "fake_nvml.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "abi/nvml.h"

using namespace qmeter;

namespace {

constexpr unsigned kMaxDevices = 8;
constexpr int64_t kMillisecond = 1'000'000;

int64_t now_ns(clockid_t clock = CLOCK_REALTIME) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

void sleep_for(int64_t ns) {
  if (ns <= 0) return;
  const timespec duration{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  nanosleep(&duration, nullptr);
}

// Numbers that one thread sets and another reads, by name.
using Numbers = std::map<std::string, std::atomic<int64_t>, std::less<>>;

struct FakeDevice {
  Numbers settings;
  Numbers calls;  // how often each call was made

  void restore_defaults();

  int64_t operator[](const char* key) const { return settings.find(key)->second; }

  int64_t power_at(int64_t since_origin_ns) const {
    const int64_t period_ns = (*this)["wave_period_ns"];
    const int64_t wave_mw = (*this)["wave_mw"];
    return (*this)["power_mw"] + (since_origin_ns % period_ns < period_ns / 2 ? wave_mw : -wave_mw);
  }

  // Integral of the power from the origin, in microjoules: mW * ns = 10^-6 uJ.
  int64_t energy_uj(int64_t since_origin_ns) const {
    const int64_t period_ns = (*this)["wave_period_ns"];
    const int64_t in_wave_ns = since_origin_ns % period_ns;
    const int64_t surplus_ns = in_wave_ns < period_ns / 2 ? in_wave_ns : period_ns - in_wave_ns;
    const auto steady = static_cast<__int128>((*this)["power_mw"]) * since_origin_ns;
    return static_cast<int64_t>((steady + static_cast<__int128>((*this)["wave_mw"]) * surplus_ns) /
                                1'000'000);
  }
};

void FakeDevice::restore_defaults() {
  const std::map<std::string, int64_t> defaults = {
      // What it draws: a constant power, plus a wave that is added in each first half and taken off in each
      // second.
      {"power_mw", 200'000},
      {"wave_mw", 0},
      {"wave_period_ns", 400 * kMillisecond},
      {"memory_power_mw", 30'000},
      // The energy counter: it restarts at 0 after `wrap_mj` and at the time `reset_at_ns`.
      {"tick_period_ns", 100 * kMillisecond},
      {"tick_phase_ns", 0},
      {"start_mj", 1'000'000},
      {"wrap_mj", 0},
      {"reset_at_ns", 0},
      {"counter_cost_ns", 0},
      {"is_counter_busy", 0},  // it takes CPU time
      {"is_counter_zero", 0},
      // The power ring: the clock of its stamps, -1 = one that nobody knows.
      {"ring_size", 119},
      {"ring_period_ns", 20 * kMillisecond},
      {"ring_clock", CLOCK_REALTIME},
      // Other readings.
      {"sm_mhz", 1980},
      {"memory_mhz", 2619},
      {"temperature_c", 35},
      {"throttle_reasons", 1},
      // Throttle times, by the counter that holds them.
      {"power_cap_ns", 0},
      {"power_brake_ns", 0},
      {"software_thermal_ns", 0},
      {"hardware_thermal_ns", 0},
      {"throttle_cost_ns", 0},
      {"value_type", nvml::kValueUnsignedInt},
      {"is_mig", 0},
      {"is_h200", 0},  // by its name, which tells its chip
      {"compute_major", 9},
      {"compute_minor", 0},
      // Faults: a return code for each call, a time from which the device is lost, one slow power_fields
      // call.
      {"total_energy_error", 0},
      {"power_samples_error", 0},
      {"power_fields_error", 0},
      {"power_instant_error", 0},
      {"power_average_error", 0},
      {"power_memory_average_error", 0},
      {"power_usage_error", 0},
      {"clock_error", 0},
      {"temperature_error", 0},
      {"throttle_reasons_error", 0},
      {"power_cap_error", 0},
      {"newer_throttle_error", 0},  // of all other throttle times
      {"violation_error", nvml::kErrorNotSupported},
      {"lost_at_ns", 0},
      {"slow_call_ns", 0},
  };
  for (const auto& [key, value] : defaults) settings[key] = value;
  for (const char* call : {"total_energy", "power_fields", "power_samples", "clock", "throttle"})
    calls[call] = 0;
}

std::array<FakeDevice, kMaxDevices> devices;
std::atomic<unsigned> num_devices{0};
std::atomic<int64_t> origin_ns{0};
std::atomic<int> init_error{0};
std::atomic<int> count_error{0};
std::atomic<int> cuda_driver_version{13000};

FakeDevice& at(nvml::Device handle) { return devices[reinterpret_cast<uintptr_t>(handle) - 1]; }

// The code that a call on this device must return: lost, the call's own error, or success.
nvml::Return fault(const FakeDevice& device, int64_t error) {
  if (device["lost_at_ns"] != 0 && now_ns() >= device["lost_at_ns"]) return nvml::kErrorGpuIsLost;
  return static_cast<nvml::Return>(error);
}

int64_t last_tick_ns(const FakeDevice& device, int64_t time_ns) {
  const int64_t since_ns = time_ns - origin_ns - device["tick_phase_ns"];
  const int64_t ticks = since_ns >= 0 ? since_ns / device["tick_period_ns"] : 0;
  return origin_ns + device["tick_phase_ns"] + ticks * device["tick_period_ns"];
}

int64_t counter_mj(const FakeDevice& device, int64_t time_ns) {
  const int64_t tick_ns = last_tick_ns(device, time_ns);
  const int64_t energy_uj = device.energy_uj(tick_ns - origin_ns);
  if (device["reset_at_ns"] != 0 && tick_ns >= device["reset_at_ns"]) {
    return (energy_uj - device.energy_uj(device["reset_at_ns"] - origin_ns)) / 1000;
  }
  const int64_t total_mj = device["start_mj"] + energy_uj / 1000;
  return device["wrap_mj"] != 0 ? total_mj % device["wrap_mj"] : total_mj;
}

void spend(const FakeDevice& device, int64_t ns) {
  const int64_t end_ns = now_ns(CLOCK_MONOTONIC) + ns;
  if (device["is_counter_busy"] == 0) sleep_for(ns);
  while (now_ns(CLOCK_MONOTONIC) < end_ns) {
  }
}

// What the ring's stamps are ahead of CLOCK_REALTIME; -1 is a clock that began 1000 s before the reset.
int64_t ring_offset_ns(clockid_t clock) {
  if (clock == CLOCK_REALTIME) return 0;
  return clock < 0 ? 1'000'000'000'000 - origin_ns : now_ns(clock) - now_ns();
}

nvml::Value as_value(const FakeDevice& device, int64_t number) {
  nvml::Value value{};
  switch (device["value_type"]) {
    case nvml::kValueDouble:
      value.dVal = static_cast<double>(number);
      break;
    case nvml::kValueUnsignedInt:
      value.uiVal = static_cast<unsigned>(number);
      break;
    default:
      value.ullVal = static_cast<unsigned long long>(number);
  }
  return value;
}

nvml::Return copy_text(const std::string& text, char* buffer, unsigned length) {
  if (text.size() + 1 > length) return nvml::kErrorInsufficientSize;
  std::memcpy(buffer, text.c_str(), text.size() + 1);
  return nvml::kSuccess;
}

void fill_field(const FakeDevice& device, nvml::FieldValue& field) {
  const int64_t power_mw = device.power_at(now_ns() - origin_ns);
  int64_t error = nvml::kErrorNotSupported;
  int64_t value_mw = power_mw;
  if (field.fieldId == nvml::kPowerInstantField && field.scopeId == nvml::kPowerScopeGpu) {
    error = device["power_instant_error"];
  } else if (field.fieldId == nvml::kPowerAverageField && field.scopeId == nvml::kPowerScopeGpu) {
    error = device["power_average_error"];
    value_mw = device["power_mw"];
  } else if (field.fieldId == nvml::kPowerAverageField && field.scopeId == nvml::kPowerScopeMemory) {
    error = device["power_memory_average_error"];
    value_mw = device["memory_power_mw"];
  }
  field.nvmlReturn = static_cast<nvml::Return>(error);
  field.valueType = static_cast<nvml::ValueType>(device["value_type"]);
  field.value = as_value(device, value_mw);
  field.timestamp = now_ns() / 1000;
}

// Whether the field is a throttle time; if so, it is filled.
bool fill_throttle_time(const FakeDevice& device, nvml::FieldValue& field) {
  static const std::map<unsigned, const char*> keys = {
      {nvml::kPowerCapTimeField, "power_cap_ns"},
      {nvml::kThermalPolicyTimeField, "software_thermal_ns"},
      {nvml::kPowerBrakeTimeField, "power_brake_ns"},
      {nvml::kSoftwareThermalTimeField, "software_thermal_ns"},
      {nvml::kHardwareThermalTimeField, "hardware_thermal_ns"}};
  const auto key = keys.find(field.fieldId);
  if (key == keys.end()) return false;
  const bool is_newer = field.fieldId != nvml::kPowerCapTimeField;
  field.nvmlReturn = static_cast<nvml::Return>(device[is_newer ? "newer_throttle_error" : "power_cap_error"]);
  field.valueType = nvml::kValueUnsignedLongLong;
  field.value.ullVal = static_cast<unsigned long long>(device[key->second]);
  return true;
}

// Settings of another process: "num_devices=2,0.power_mw=300000".
void read_environment() {
  const char* variable = std::getenv("QMETER_FAKE_NVML");
  std::string words = variable != nullptr ? variable : "";
  fake_nvml_reset(1);
  for (size_t start = 0; start < words.size();) {
    const size_t end = std::min(words.find(',', start), words.size());
    const std::string word = words.substr(start, end - start);
    const size_t equals = word.find('=');
    const size_t dot = word.find('.');
    const int64_t value = equals != std::string::npos ? std::atoll(word.c_str() + equals + 1) : 0;
    if (dot == std::string::npos && word.rfind("num_devices=", 0) == 0) {
      fake_nvml_reset(static_cast<unsigned>(value));
    } else if (dot == std::string::npos) {
      fake_nvml_set_library(word.substr(0, equals).c_str(), value);
    } else {
      const auto device = static_cast<unsigned>(std::atoi(word.c_str()));
      fake_nvml_set(device, word.substr(dot + 1, equals - dot - 1).c_str(), value);
    }
    start = end + 1;
  }
}

const bool is_loaded = (read_environment(), true);  // after the devices above are constructed

}  // namespace

extern "C" {

void fake_nvml_reset(unsigned count) {
  num_devices = std::min(count, kMaxDevices);
  origin_ns = now_ns();
  init_error = 0;
  count_error = 0;
  cuda_driver_version = 13000;
  for (FakeDevice& device : devices) device.restore_defaults();
}

int fake_nvml_set(unsigned device, const char* key, long long value) {
  if (device >= kMaxDevices) return -1;
  const auto found = devices[device].settings.find(key);
  if (found == devices[device].settings.end()) return -1;
  found->second = value;
  return 0;
}

int fake_nvml_set_library(const char* key, long long value) {
  const std::map<std::string, std::atomic<int>*> settings = {{"init_error", &init_error},
                                                             {"count_error", &count_error},
                                                             {"cuda_driver_version", &cuda_driver_version}};
  const auto found = settings.find(key);
  if (found == settings.end()) return -1;
  *found->second = static_cast<int>(value);
  return 0;
}

long long fake_nvml_num_calls(unsigned device, const char* call) {
  const auto found = devices[device].calls.find(call);
  return found != devices[device].calls.end() ? found->second.load() : -1;
}

long long fake_nvml_energy_uj(unsigned device, long long time_ns) {
  return devices[device].energy_uj(time_ns - origin_ns);
}

long long fake_nvml_tick_ns(unsigned device, long long time_ns) {
  return last_tick_ns(devices[device], time_ns);
}

nvml::Return nvmlInit_v2() { return init_error; }
nvml::Return nvmlShutdown() { return nvml::kSuccess; }

const char* nvmlErrorString(nvml::Return code) {
  switch (code) {
    case nvml::kSuccess:
      return "Success";
    case nvml::kErrorInvalidArgument:
      return "Invalid Argument";
    case nvml::kErrorNotSupported:
      return "Not Supported";
    case nvml::kErrorNoPermission:
      return "Insufficient Permissions";
    case nvml::kErrorGpuIsLost:
      return "GPU is lost";
    default:
      return "Unknown Error";
  }
}

nvml::Return nvmlSystemGetDriverVersion(char* text, unsigned length) {
  return copy_text("999.1", text, length);
}
nvml::Return nvmlSystemGetNVMLVersion(char* text, unsigned length) {
  return copy_text("13.999.1", text, length);
}

nvml::Return nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = cuda_driver_version;
  return nvml::kSuccess;
}

nvml::Return nvmlDeviceGetCount_v2(unsigned* count) {
  *count = num_devices;
  return count_error;
}

nvml::Return nvmlDeviceGetHandleByIndex_v2(unsigned index, nvml::Device* handle) {
  if (index >= num_devices) return nvml::kErrorInvalidArgument;
  *handle = reinterpret_cast<nvml::Device>(static_cast<uintptr_t>(index) + 1);
  return fault(devices[index], 0);
}

nvml::Return nvmlDeviceGetName(nvml::Device handle, char* text, unsigned length) {
  return copy_text(at(handle)["is_h200"] != 0 ? "NVIDIA H200" : "Fake GPU", text, length);
}

nvml::Return nvmlDeviceGetUUID(nvml::Device handle, char* text, unsigned length) {
  // As the fake libcuda numbers them.
  const std::string number = std::to_string(reinterpret_cast<uintptr_t>(handle) - 1);
  return copy_text("GPU-fa4e000" + number + "-0000-0000-0000-000000000000", text, length);
}

nvml::Return nvmlDeviceGetMigMode(nvml::Device handle, unsigned* current, unsigned* pending) {
  *current = *pending = static_cast<unsigned>(at(handle)["is_mig"]);
  return nvml::kSuccess;
}

nvml::Return nvmlDeviceGetMemoryInfo(nvml::Device, nvml::Memory* memory) {
  *memory = {1ULL << 36, 1ULL << 35, 1ULL << 35};
  return nvml::kSuccess;
}

nvml::Return nvmlDeviceGetEnforcedPowerLimit(nvml::Device, unsigned* limit) {
  *limit = 700'000;
  return nvml::kSuccess;
}

nvml::Return nvmlDeviceGetCudaComputeCapability(nvml::Device handle, int* major, int* minor) {
  *major = static_cast<int>(at(handle)["compute_major"]);
  *minor = static_cast<int>(at(handle)["compute_minor"]);
  return nvml::kSuccess;
}

nvml::Return nvmlDeviceGetTotalEnergyConsumption(nvml::Device handle, unsigned long long* energy) {
  FakeDevice& device = at(handle);
  ++device.calls["total_energy"];
  spend(device, device["counter_cost_ns"] / 2);
  *energy = device["is_counter_zero"] ? 0 : static_cast<unsigned long long>(counter_mj(device, now_ns()));
  spend(device, device["counter_cost_ns"] / 2);
  return fault(device, device["total_energy_error"]);
}

nvml::Return nvmlDeviceGetPowerUsage(nvml::Device handle, unsigned* power) {
  const FakeDevice& device = at(handle);
  *power = static_cast<unsigned>(device.power_at(now_ns() - origin_ns));
  return fault(device, device["power_usage_error"]);
}

nvml::Return nvmlDeviceGetFieldValues(nvml::Device handle, int count, nvml::FieldValue* values) {
  FakeDevice& device = at(handle);
  if (count > 0 && fill_throttle_time(device, values[0])) {
    ++device.calls["throttle"];
    sleep_for(device["throttle_cost_ns"]);
    for (int i = 1; i < count; ++i) fill_throttle_time(device, values[i]);
    return fault(device, 0);
  }
  ++device.calls["power_fields"];
  sleep_for(device.settings["slow_call_ns"].exchange(0));
  for (int i = 0; i < count; ++i) fill_field(device, values[i]);
  return fault(device, device["power_fields_error"]);
}

nvml::Return nvmlDeviceGetViolationStatus(nvml::Device handle, int policy, nvml::ViolationTime* time) {
  const FakeDevice& device = at(handle);
  const char* key = policy == nvml::kPolicyPower ? "power_cap_ns" : "software_thermal_ns";
  *time = {static_cast<unsigned long long>(now_ns() / 1000), static_cast<unsigned long long>(device[key])};
  return fault(device, device["violation_error"]);
}

nvml::Return nvmlDeviceGetSamples(nvml::Device handle, int, unsigned long long last_seen,
                                  nvml::ValueType* type, unsigned* count, nvml::Sample* samples) {
  FakeDevice& device = at(handle);
  ++device.calls["power_samples"];
  const nvml::Return result = fault(device, device["power_samples_error"]);
  if (result != nvml::kSuccess) return result;
  *type = static_cast<nvml::ValueType>(device["value_type"]);
  if (samples == nullptr) {
    *count = static_cast<unsigned>(device["ring_size"]);
    return nvml::kSuccess;
  }
  const int64_t period_ns = device["ring_period_ns"];
  const int64_t newest_ns = now_ns() / period_ns * period_ns;
  const int64_t offset_ns = ring_offset_ns(static_cast<clockid_t>(device["ring_clock"]));
  unsigned num_copied = 0;
  for (int64_t i = device["ring_size"] - 1; i >= 0 && num_copied < *count; --i) {
    const int64_t time_ns = newest_ns - i * period_ns;
    const int64_t stamp_us = (time_ns + offset_ns) / 1000;
    if (stamp_us <= static_cast<int64_t>(last_seen)) continue;
    samples[num_copied].timeStamp = static_cast<unsigned long long>(stamp_us);
    samples[num_copied++].sampleValue =
        as_value(device, device.power_at(std::max<int64_t>(0, time_ns - origin_ns)));
  }
  *count = num_copied;
  return num_copied > 0 ? nvml::kSuccess : nvml::kErrorNotFound;
}

nvml::Return nvmlDeviceGetClockInfo(nvml::Device handle, int type, unsigned* mhz) {
  FakeDevice& device = at(handle);
  ++device.calls["clock"];
  *mhz = static_cast<unsigned>(type == nvml::kClockSm ? device["sm_mhz"] : device["memory_mhz"]);
  return fault(device, device["clock_error"]);
}

nvml::Return nvmlDeviceGetTemperature(nvml::Device handle, int, unsigned* celsius) {
  *celsius = static_cast<unsigned>(at(handle)["temperature_c"]);
  return fault(at(handle), at(handle)["temperature_error"]);
}

nvml::Return nvmlDeviceGetCurrentClocksEventReasons(nvml::Device handle, unsigned long long* reasons) {
  *reasons = static_cast<unsigned long long>(at(handle)["throttle_reasons"]);
  return fault(at(handle), at(handle)["throttle_reasons_error"]);
}
}
