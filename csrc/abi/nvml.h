// Our own declarations of the part of NVML that we call. Names and layouts are the vendor's;
// tools/check_abi.py compiles them against NVIDIA's header of CUDA 12 and of CUDA 13.
#pragma once

namespace qmeter::nvml {

using Return = int;
constexpr Return kSuccess = 0;
constexpr Return kErrorInvalidArgument = 2;
constexpr Return kErrorNotSupported = 3;
constexpr Return kErrorNoPermission = 4;
constexpr Return kErrorNotFound = 6;
constexpr Return kErrorInsufficientSize = 7;
constexpr Return kErrorFunctionNotFound = 13;
constexpr Return kErrorGpuIsLost = 15;

using Device = struct nvmlDevice_st*;

constexpr unsigned kPowerAverageField = 185;  // NVML_FI_DEV_POWER_AVERAGE
constexpr unsigned kPowerInstantField = 186;  // NVML_FI_DEV_POWER_INSTANT
constexpr unsigned kPowerScopeGpu = 0;
constexpr unsigned kPowerScopeMemory = 2;

// Time for which clocks were held down, cumulative, in nanoseconds. The last three have these numbers since
// CUDA 13; in CUDA 12.9 they were 251 to 253, and 269 to 271 were settings of power smoothing.
constexpr unsigned kPowerCapTimeField = 74;          // NVML_FI_DEV_PERF_POLICY_POWER
constexpr unsigned kThermalPolicyTimeField = 75;     // NVML_FI_DEV_PERF_POLICY_THERMAL
constexpr unsigned kSoftwareThermalTimeField = 269;  // NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN
constexpr unsigned kHardwareThermalTimeField = 270;  // NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN
constexpr unsigned kPowerBrakeTimeField = 271;  // NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN
constexpr int kPolicyPower = 0;
constexpr int kPolicyThermal = 1;

constexpr int kTotalPowerSamples = 0;
constexpr int kClockSm = 1;
constexpr int kClockMemory = 2;
constexpr int kTemperatureGpu = 0;
constexpr unsigned kMigEnabled = 1;
constexpr unsigned kTextBytes = 96;  // the longest of the vendor's buffers for names, UUIDs and versions

using ValueType = int;
constexpr ValueType kValueDouble = 0;
constexpr ValueType kValueUnsignedInt = 1;
constexpr ValueType kValueUnsignedLong = 2;
constexpr ValueType kValueUnsignedLongLong = 3;
constexpr ValueType kValueSignedLongLong = 4;
constexpr ValueType kValueSignedInt = 5;

union Value {
  double dVal;
  int siVal;
  unsigned int uiVal;
  unsigned long ulVal;
  unsigned long long ullVal;
  signed long long sllVal;
};

struct Sample {
  unsigned long long timeStamp;  // microseconds
  Value sampleValue;
};

struct FieldValue {
  unsigned int fieldId;
  unsigned int scopeId;
  long long timestamp;  // microseconds
  long long latencyUsec;
  ValueType valueType;
  Return nvmlReturn;
  Value value;
};

struct ViolationTime {
  unsigned long long referenceTime;  // microseconds
  unsigned long long violationTime;  // nanoseconds
};

struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

// Functions, by their exported names.
using nvmlInit_v2 = Return();
using nvmlShutdown = Return();
using nvmlErrorString = const char*(Return);
using nvmlSystemGetDriverVersion = Return(char*, unsigned int);
using nvmlSystemGetNVMLVersion = Return(char*, unsigned int);
using nvmlSystemGetCudaDriverVersion_v2 = Return(int*);
using nvmlDeviceGetCount_v2 = Return(unsigned int*);
using nvmlDeviceGetHandleByIndex_v2 = Return(unsigned int, Device*);
using nvmlDeviceGetName = Return(Device, char*, unsigned int);
using nvmlDeviceGetUUID = Return(Device, char*, unsigned int);
using nvmlDeviceGetMigMode = Return(Device, unsigned int*, unsigned int*);
using nvmlDeviceGetMemoryInfo = Return(Device, Memory*);
using nvmlDeviceGetEnforcedPowerLimit = Return(Device, unsigned int*);
using nvmlDeviceGetCudaComputeCapability = Return(Device, int*, int*);
using nvmlDeviceGetTotalEnergyConsumption = Return(Device, unsigned long long*);
using nvmlDeviceGetPowerUsage = Return(Device, unsigned int*);
using nvmlDeviceGetFieldValues = Return(Device, int, FieldValue*);
using nvmlDeviceGetViolationStatus = Return(Device, int, ViolationTime*);
using nvmlDeviceGetSamples = Return(Device, int, unsigned long long, ValueType*, unsigned int*, Sample*);
using nvmlDeviceGetClockInfo = Return(Device, int, unsigned int*);
using nvmlDeviceGetTemperature = Return(Device, int, unsigned int*);
using nvmlDeviceGetCurrentClocksEventReasons = Return(Device, unsigned long long*);
using nvmlDeviceGetCurrentClocksThrottleReasons = Return(Device, unsigned long long*);

}  // namespace qmeter::nvml
