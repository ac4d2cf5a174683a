"""What of our own declarations in ``csrc/abi`` is compared with NVIDIA's headers: one table a library."""

from __future__ import annotations

from typing import Final

from tools import abi_cupti_profiler
from tools.abi_table import AbiStruct, AbiTable

__all__ = ["TABLES"]

_CRT: Final = "nvidia-cuda-crt==13.5.37"
"""Only macros for compilers: one version serves all."""

_CUDA: Final = {
    "CUDA 12.1": ("nvidia-cuda-cupti-cu12==12.1.105", "nvidia-cuda-runtime-cu12==12.1.105", _CRT),
    "CUDA 12.4": ("nvidia-cuda-cupti-cu12==12.4.127", "nvidia-cuda-runtime-cu12==12.4.127", _CRT),
    "CUDA 12.6": ("nvidia-cuda-cupti-cu12==12.6.80", "nvidia-cuda-runtime-cu12==12.6.77", _CRT),
    "CUDA 12.8": ("nvidia-cuda-cupti-cu12==12.8.90", "nvidia-cuda-runtime-cu12==12.8.90", _CRT),
    "CUDA 13.0": ("nvidia-cuda-cupti==13.0.85", "nvidia-cuda-runtime==13.0.96", _CRT),
    "CUDA 13, newest": ("nvidia-cuda-cupti", "nvidia-cuda-runtime", _CRT),
}

_ACTIVITY: Final = {
    "kind": "kind",
    "start": "start",
    "end": "end",
    "device_id": "deviceId",
    "context_id": "contextId",
    "stream_id": "streamId",
    "correlation_id": "correlationId",
    "graph_node_id": "graphNodeId",
    "graph_id": "graphId",
}

_CUPTI: Final = AbiTable(
    name="CUPTI",
    header="abi/cupti.h",
    namespace="qmeter::cupti",
    vendor_headers=("cupti_result.h", "cupti_activity.h", "cupti_callbacks.h", "cupti_version.h"),
    packages=_CUDA,
    values={
        "kSuccess": "CUPTI_SUCCESS",
        "kErrorMaxLimitReached": "CUPTI_ERROR_MAX_LIMIT_REACHED",
        "kErrorInvalidKind": "CUPTI_ERROR_INVALID_KIND",
        "kErrorInsufficientPrivileges": "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES",
        "kErrorMultipleSubscribersNotSupported": "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED",
        "kErrorVirtualizedDeviceInsufficientPrivileges": "CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES",
        "kErrorUnknown": "CUPTI_ERROR_UNKNOWN",
        "kActivityMemcpy": "CUPTI_ACTIVITY_KIND_MEMCPY",
        "kActivityMemset": "CUPTI_ACTIVITY_KIND_MEMSET",
        "kActivityConcurrentKernel": "CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL",
        "kActivityMemcpy2": "CUPTI_ACTIVITY_KIND_MEMCPY2",
        "kAttributeZeroedOutActivityBuffer": "CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER",
        "kFlushForced": "CUPTI_ACTIVITY_FLAG_FLUSH_FORCED",
        "kMemcpyUnknown": "CUPTI_ACTIVITY_MEMCPY_KIND_UNKNOWN",
        "kMemcpyHtoD": "CUPTI_ACTIVITY_MEMCPY_KIND_HTOD",
        "kMemcpyDtoH": "CUPTI_ACTIVITY_MEMCPY_KIND_DTOH",
        "kMemcpyHtoA": "CUPTI_ACTIVITY_MEMCPY_KIND_HTOA",
        "kMemcpyAtoH": "CUPTI_ACTIVITY_MEMCPY_KIND_ATOH",
        "kMemcpyAtoA": "CUPTI_ACTIVITY_MEMCPY_KIND_ATOA",
        "kMemcpyAtoD": "CUPTI_ACTIVITY_MEMCPY_KIND_ATOD",
        "kMemcpyDtoA": "CUPTI_ACTIVITY_MEMCPY_KIND_DTOA",
        "kMemcpyDtoD": "CUPTI_ACTIVITY_MEMCPY_KIND_DTOD",
        "kMemcpyHtoH": "CUPTI_ACTIVITY_MEMCPY_KIND_HTOH",
        "kMemcpyPtoP": "CUPTI_ACTIVITY_MEMCPY_KIND_PTOP",
    },
    structs=(
        AbiStruct("Activity", "CUpti_Activity", {"kind": "kind"}, is_prefix=True),
        AbiStruct(
            "ActivityKernel",
            r"CUpti_ActivityKernel(\d+)",
            {
                **_ACTIVITY,
                "registers_per_thread": "registersPerThread",
                "grid_x": "gridX",
                "grid_y": "gridY",
                "grid_z": "gridZ",
                "block_x": "blockX",
                "block_y": "blockY",
                "block_z": "blockZ",
                "static_shared_memory": "staticSharedMemory",
                "dynamic_shared_memory": "dynamicSharedMemory",
                "name": "name",
            },
            oldest=9,
            is_prefix=True,
        ),
        AbiStruct(
            "ActivityMemcpy",
            r"CUpti_ActivityMemcpy(\d+)",
            {**_ACTIVITY, "copy_kind": "copyKind", "bytes": "bytes"},
            oldest=5,
            is_prefix=True,
        ),
        AbiStruct(
            "ActivityMemcpy2",
            r"CUpti_ActivityMemcpyPtoP(\d+)",
            {**_ACTIVITY, "copy_kind": "copyKind", "bytes": "bytes"},
            oldest=4,
            is_prefix=True,
        ),
        AbiStruct(
            "ActivityMemset", r"CUpti_ActivityMemset(\d+)", {**_ACTIVITY, "bytes": "bytes"}, oldest=4, is_prefix=True
        ),
    ),
    functions=(
        "cuptiGetVersion",
        "cuptiGetResultString",
        "cuptiGetTimestamp",
        "cuptiSubscribe",
        "cuptiUnsubscribe",
        "cuptiActivityRegisterCallbacks",
        "cuptiActivityEnable",
        "cuptiActivityDisable",
        "cuptiActivitySetAttribute",
        "cuptiActivityFlushPeriod",
        "cuptiActivityFlushAll",
        "cuptiActivityGetNextRecord",
        "cuptiActivityGetNumDroppedRecords",
    ),
)

_CUPTI_PROFILER: Final = AbiTable(
    name="CUPTI profiler",
    header="abi/cupti_profiler.h",
    namespace="qmeter::cupti",
    vendor_headers=(
        "cupti_result.h",
        "cupti_target.h",
        "cupti_profiler_target.h",
        "cupti_profiler_host.h",
        "cupti_pmsampling.h",
    ),
    packages={label: _CUDA[label] for label in ("CUDA 12.8", "CUDA 13.0", "CUDA 13, newest")},
    values=abi_cupti_profiler.VALUES,
    structs=abi_cupti_profiler.STRUCTS,
    functions=abi_cupti_profiler.FUNCTIONS,
)

_CUDA_DRIVER: Final = AbiTable(
    name="CUDA driver",
    header="abi/cuda_driver.h",
    namespace="qmeter::cuda",
    vendor_headers=("cuda.h",),
    packages=_CUDA,
    values={
        "kSuccess": "CUDA_SUCCESS",
        "kErrorNotInitialized": "CUDA_ERROR_NOT_INITIALIZED",
        "kErrorNoDevice": "CUDA_ERROR_NO_DEVICE",
        "kErrorInvalidDevice": "CUDA_ERROR_INVALID_DEVICE",
        "kErrorInvalidContext": "CUDA_ERROR_INVALID_CONTEXT",
        "kErrorInvalidHandle": "CUDA_ERROR_INVALID_HANDLE",
        "kAttributeClockRate": "CU_DEVICE_ATTRIBUTE_CLOCK_RATE",
        "kAttributeMultiprocessorCount": "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT",
    },
    structs=(AbiStruct("Uuid", "CUuuid", {"bytes": "bytes"}),),
    functions=(
        "cuInit",
        "cuGetErrorName",
        "cuDeviceGetCount",
        "cuDeviceGetUuid_v2",
        "cuDeviceGetAttribute",
        "cuCtxGetCurrent",
        "cuCtxPushCurrent_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRetain",
        "cuDevicePrimaryCtxRelease_v2",
        "cuModuleLoadData",
        "cuModuleUnload",
        "cuModuleGetFunction",
        "cuLaunchKernel",
    ),
)

_NVML_VALUES: Final = ("dVal", "siVal", "uiVal", "ulVal", "ullVal", "sllVal")
_NVML_FIELD: Final = ("fieldId", "scopeId", "timestamp", "latencyUsec", "valueType", "nvmlReturn", "value")

_NVML: Final = AbiTable(
    name="NVML",
    header="abi/nvml.h",
    namespace="qmeter::nvml",
    vendor_headers=("nvml.h",),
    packages={
        "CUDA 12.4": ("nvidia-nvml-dev-cu12==12.4.127",),
        "CUDA 12.8": ("nvidia-nvml-dev-cu12==12.8.90",),
        "CUDA 12, newest": ("nvidia-nvml-dev-cu12",),
        "CUDA 13.0": ("nvidia-nvml-dev==13.0.87",),
        "CUDA 13, newest": ("nvidia-nvml-dev",),
    },
    values={
        "kSuccess": "NVML_SUCCESS",
        "kErrorInvalidArgument": "NVML_ERROR_INVALID_ARGUMENT",
        "kErrorNotSupported": "NVML_ERROR_NOT_SUPPORTED",
        "kErrorNoPermission": "NVML_ERROR_NO_PERMISSION",
        "kErrorNotFound": "NVML_ERROR_NOT_FOUND",
        "kErrorInsufficientSize": "NVML_ERROR_INSUFFICIENT_SIZE",
        "kErrorFunctionNotFound": "NVML_ERROR_FUNCTION_NOT_FOUND",
        "kErrorGpuIsLost": "NVML_ERROR_GPU_IS_LOST",
        "kPowerAverageField": "NVML_FI_DEV_POWER_AVERAGE",
        "kPowerInstantField": "NVML_FI_DEV_POWER_INSTANT",
        "kPowerScopeGpu": "NVML_POWER_SCOPE_GPU",
        "kPowerScopeMemory": "NVML_POWER_SCOPE_MEMORY",
        "kPowerCapTimeField": "NVML_FI_DEV_PERF_POLICY_POWER",
        "kThermalPolicyTimeField": "NVML_FI_DEV_PERF_POLICY_THERMAL",
        "kPolicyPower": "NVML_PERF_POLICY_POWER",
        "kPolicyThermal": "NVML_PERF_POLICY_THERMAL",
        "kTotalPowerSamples": "NVML_TOTAL_POWER_SAMPLES",
        "kClockSm": "NVML_CLOCK_SM",
        "kClockMemory": "NVML_CLOCK_MEM",
        "kTemperatureGpu": "NVML_TEMPERATURE_GPU",
        "kMigEnabled": "NVML_DEVICE_MIG_ENABLE",
        "kTextBytes": "NVML_DEVICE_NAME_V2_BUFFER_SIZE",
        "kValueDouble": "NVML_VALUE_TYPE_DOUBLE",
        "kValueUnsignedInt": "NVML_VALUE_TYPE_UNSIGNED_INT",
        "kValueUnsignedLong": "NVML_VALUE_TYPE_UNSIGNED_LONG",
        "kValueUnsignedLongLong": "NVML_VALUE_TYPE_UNSIGNED_LONG_LONG",
        "kValueSignedLongLong": "NVML_VALUE_TYPE_SIGNED_LONG_LONG",
        "kValueSignedInt": "NVML_VALUE_TYPE_SIGNED_INT",
    },
    newer_if="NVML_API_VERSION >= 13",
    newer_values={
        "kSoftwareThermalTimeField": "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
        "kHardwareThermalTimeField": "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
        "kPowerBrakeTimeField": "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
    },
    structs=(
        AbiStruct("Value", "nvmlValue_t", {name: name for name in _NVML_VALUES}),
        AbiStruct("Sample", "nvmlSample_t", {"timeStamp": "timeStamp", "sampleValue": "sampleValue"}),
        AbiStruct("FieldValue", "nvmlFieldValue_t", {name: name for name in _NVML_FIELD}),
        AbiStruct("ViolationTime", "nvmlViolationTime_t", {name: name for name in ("referenceTime", "violationTime")}),
        AbiStruct("Memory", "nvmlMemory_t", {name: name for name in ("total", "free", "used")}),
    ),
    functions=(
        "nvmlInit_v2",
        "nvmlShutdown",
        "nvmlErrorString",
        "nvmlSystemGetDriverVersion",
        "nvmlSystemGetNVMLVersion",
        "nvmlSystemGetCudaDriverVersion_v2",
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetName",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetViolationStatus",
        "nvmlDeviceGetSamples",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    ),
)

TABLES: Final = (_CUPTI, _CUPTI_PROFILER, _CUDA_DRIVER, _NVML)
