// Our own minimal declarations of CUPTI's host profiler and PM sampling, as of CUDA 12.8. NVIDIA appends to
// its parameter structs and never moves a field; `struct_size` says up to where ours goes. Checked by
// tools/check_abi.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/cupti.h"

namespace qmeter::cupti {

constexpr Result kErrorInvalidParameter = 1;
constexpr Result kErrorInvalidOperation = 7;
constexpr Result kErrorOutOfMemory = 8;
constexpr Result kErrorInvalidMetricName = 17;
constexpr Result kErrorHardwareBusy = 26;
constexpr Result kErrorNotSupported = 27;

constexpr uint32_t kOldestPmSamplingVersion = 26;  // CUDA 12.8

using ProfilerType = int32_t;
constexpr ProfilerType kProfilerPmSampling = 1;

using MetricType = int32_t;

using SupportLevel = int32_t;
constexpr SupportLevel kConfigurationUnsupported = 1;
constexpr SupportLevel kConfigurationDisabled = 2;
constexpr SupportLevel kConfigurationSupported = 3;

using ProfilerApi = int32_t;
constexpr ProfilerApi kProfilerApiPmSampling = 3;

using TriggerMode = int32_t;
constexpr TriggerMode kTriggerSysclkInterval = 0;  // in cycles of a clock that varies
constexpr TriggerMode kTriggerTimeInterval = 1;    // in nanoseconds; not on Turing and GA100

using AppendMode = int32_t;
constexpr AppendMode kAppendKeepOldest = 0;

using DecodeStopReason = int32_t;
constexpr DecodeStopReason kDecodeCounterDataFull = 1;
constexpr DecodeStopReason kDecodeEndOfRecords = 2;

struct HostObject;        // CUpti_Profiler_Host_Object
struct PmSamplingObject;  // CUpti_PmSampling_Object

// How far a struct of parameters goes: up to the end of its last field.
#define QMETER_STRUCT_SIZE(type, last) (offsetof(type, last) + sizeof(last))

struct ProfilerInitializeParams {
  size_t struct_size = QMETER_STRUCT_SIZE(ProfilerInitializeParams, priv);
  void* priv = nullptr;
};

struct DeviceSupportedParams {
  size_t struct_size = QMETER_STRUCT_SIZE(DeviceSupportedParams, api);
  void* priv = nullptr;
  int32_t device = 0;  // CUdevice
  SupportLevel is_supported = 0;
  SupportLevel architecture = 0;
  SupportLevel sli = 0;
  SupportLevel vgpu = 0;
  SupportLevel confidential_compute = 0;
  SupportLevel cmp = 0;
  SupportLevel wsl = 0;
  ProfilerApi api = 0;
};

struct GetChipNameParams {
  size_t struct_size = QMETER_STRUCT_SIZE(GetChipNameParams, chip_name);
  void* priv = nullptr;
  size_t device_index = 0;
  const char* chip_name = nullptr;
};

struct HostGetSupportedChipsParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostGetSupportedChipsParams, chip_names);
  void* priv = nullptr;
  size_t num_chips = 0;
  const char* const* chip_names = nullptr;
};

struct HostInitializeParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostInitializeParams, host);
  void* priv = nullptr;
  ProfilerType profiler_type = 0;
  const char* chip_name = nullptr;
  const uint8_t* counter_availability = nullptr;
  HostObject* host = nullptr;
};

struct HostDeinitializeParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostDeinitializeParams, host);
  void* priv = nullptr;
  HostObject* host = nullptr;
};

struct HostGetMetricPropertiesParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostGetMetricPropertiesParams, metric_type);
  void* priv = nullptr;
  HostObject* host = nullptr;
  const char* metric_name = nullptr;
  const char* description = nullptr;
  const char* hardware_unit = nullptr;
  const char* dimension = nullptr;
  MetricType metric_type = 0;
};

struct HostConfigAddMetricsParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostConfigAddMetricsParams, num_metrics);
  void* priv = nullptr;
  HostObject* host = nullptr;
  const char** metric_names = nullptr;
  size_t num_metrics = 0;
};

struct HostGetConfigImageSizeParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostGetConfigImageSizeParams, size);
  void* priv = nullptr;
  HostObject* host = nullptr;
  size_t size = 0;
};

struct HostGetConfigImageParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostGetConfigImageParams, image);
  void* priv = nullptr;
  HostObject* host = nullptr;
  size_t size = 0;
  uint8_t* image = nullptr;
};

struct HostGetNumOfPassesParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostGetNumOfPassesParams, num_passes);
  void* priv = nullptr;
  size_t size = 0;
  const uint8_t* image = nullptr;
  size_t num_passes = 0;
};

struct HostEvaluateParams {
  size_t struct_size = QMETER_STRUCT_SIZE(HostEvaluateParams, values);
  void* priv = nullptr;
  HostObject* host = nullptr;
  const uint8_t* image = nullptr;
  size_t image_size = 0;
  size_t index = 0;
  const char** metric_names = nullptr;
  size_t num_metrics = 0;
  double* values = nullptr;
};

struct PmSamplingGetCounterAvailabilityParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingGetCounterAvailabilityParams, image);
  void* priv = nullptr;
  size_t device_index = 0;
  size_t size = 0;
  uint8_t* image = nullptr;
};

struct PmSamplingEnableParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingEnableParams, object);
  void* priv = nullptr;
  size_t device_index = 0;
  PmSamplingObject* object = nullptr;
};

// Of Disable, Start and Stop.
struct PmSamplingObjectParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingObjectParams, object);
  void* priv = nullptr;
  PmSamplingObject* object = nullptr;
};

struct PmSamplingSetConfigParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingSetConfigParams, append_mode);
  void* priv = nullptr;
  PmSamplingObject* object = nullptr;
  size_t config_size = 0;
  const uint8_t* config = nullptr;
  size_t hardware_buffer_size = 0;
  uint64_t sampling_interval = 0;
  TriggerMode trigger_mode = 0;
  AppendMode append_mode = 0;
};

struct PmSamplingGetCounterDataSizeParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingGetCounterDataSizeParams, size);
  void* priv = nullptr;
  PmSamplingObject* object = nullptr;
  const char** metric_names = nullptr;
  size_t num_metrics = 0;
  uint32_t max_samples = 0;
  size_t size = 0;
};

struct PmSamplingInitializeImageParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingInitializeImageParams, image);
  void* priv = nullptr;
  PmSamplingObject* object = nullptr;
  size_t size = 0;
  uint8_t* image = nullptr;
};

struct PmSamplingDecodeParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingDecodeParams, overflow);
  void* priv = nullptr;
  PmSamplingObject* object = nullptr;
  uint8_t* image = nullptr;
  size_t size = 0;
  DecodeStopReason stop_reason = 0;
  uint8_t overflow = 0;
};

struct PmSamplingGetCounterDataInfoParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingGetCounterDataInfoParams, num_completed);
  void* priv = nullptr;
  const uint8_t* image = nullptr;
  size_t size = 0;
  size_t num_total = 0;
  size_t num_populated = 0;
  size_t num_completed = 0;
};

struct PmSamplingGetSampleInfoParams {
  size_t struct_size = QMETER_STRUCT_SIZE(PmSamplingGetSampleInfoParams, end);
  void* priv = nullptr;
  PmSamplingObject* object = nullptr;
  const uint8_t* image = nullptr;
  size_t size = 0;
  size_t index = 0;
  uint64_t start = 0;
  uint64_t end = 0;
};

#undef QMETER_STRUCT_SIZE

// Functions, by their exported names.
using cuptiProfilerInitialize = Result(ProfilerInitializeParams*);
using cuptiProfilerDeviceSupported = Result(DeviceSupportedParams*);
using cuptiDeviceGetChipName = Result(GetChipNameParams*);
using cuptiProfilerHostGetSupportedChips = Result(HostGetSupportedChipsParams*);
using cuptiProfilerHostInitialize = Result(HostInitializeParams*);
using cuptiProfilerHostDeinitialize = Result(HostDeinitializeParams*);
using cuptiProfilerHostGetMetricProperties = Result(HostGetMetricPropertiesParams*);
using cuptiProfilerHostConfigAddMetrics = Result(HostConfigAddMetricsParams*);
using cuptiProfilerHostGetConfigImageSize = Result(HostGetConfigImageSizeParams*);
using cuptiProfilerHostGetConfigImage = Result(HostGetConfigImageParams*);
using cuptiProfilerHostGetNumOfPasses = Result(HostGetNumOfPassesParams*);
using cuptiProfilerHostEvaluateToGpuValues = Result(HostEvaluateParams*);
using cuptiPmSamplingGetCounterAvailability = Result(PmSamplingGetCounterAvailabilityParams*);
using cuptiPmSamplingEnable = Result(PmSamplingEnableParams*);
using cuptiPmSamplingDisable = Result(PmSamplingObjectParams*);
using cuptiPmSamplingSetConfig = Result(PmSamplingSetConfigParams*);
using cuptiPmSamplingStart = Result(PmSamplingObjectParams*);
using cuptiPmSamplingStop = Result(PmSamplingObjectParams*);
using cuptiPmSamplingGetCounterDataSize = Result(PmSamplingGetCounterDataSizeParams*);
using cuptiPmSamplingCounterDataImageInitialize = Result(PmSamplingInitializeImageParams*);
using cuptiPmSamplingDecodeData = Result(PmSamplingDecodeParams*);
using cuptiPmSamplingGetCounterDataInfo = Result(PmSamplingGetCounterDataInfoParams*);
using cuptiPmSamplingCounterDataGetSampleInfo = Result(PmSamplingGetSampleInfoParams*);

}  // namespace qmeter::cupti
