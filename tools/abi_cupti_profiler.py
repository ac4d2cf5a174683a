"""CUPTI's host profiler and PM sampling in ``csrc/abi/cupti_profiler.h``, for `abi_tables`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tools.abi_table import AbiStruct

__all__ = ["FUNCTIONS", "STRUCTS", "VALUES"]


def _parameters(ours: str, theirs: str, fields: Mapping[str, str], *, is_prefix: bool = False) -> AbiStruct:
    """A struct of parameters: all begin with their size and a pointer that stays null."""
    return AbiStruct(ours, theirs, {"struct_size": "structSize", "priv": "pPriv", **fields}, is_prefix=is_prefix)


STRUCTS: Final = (
    _parameters("ProfilerInitializeParams", "CUpti_Profiler_Initialize_Params", {}),
    _parameters(
        "DeviceSupportedParams",
        "CUpti_Profiler_DeviceSupported_Params",
        {
            "device": "cuDevice",
            "is_supported": "isSupported",
            "architecture": "architecture",
            "sli": "sli",
            "vgpu": "vGpu",
            "confidential_compute": "confidentialCompute",
            "cmp": "cmp",
            "wsl": "wsl",
            "api": "api",
        },
        is_prefix=True,
    ),
    _parameters(
        "GetChipNameParams",
        "CUpti_Device_GetChipName_Params",
        {"device_index": "deviceIndex", "chip_name": "pChipName"},
    ),
    _parameters(
        "HostGetSupportedChipsParams",
        "CUpti_Profiler_Host_GetSupportedChips_Params",
        {"num_chips": "numChips", "chip_names": "ppChipNames"},
    ),
    _parameters(
        "HostInitializeParams",
        "CUpti_Profiler_Host_Initialize_Params",
        {
            "profiler_type": "profilerType",
            "chip_name": "pChipName",
            "counter_availability": "pCounterAvailabilityImage",
            "host": "pHostObject",
        },
        is_prefix=True,
    ),
    _parameters("HostDeinitializeParams", "CUpti_Profiler_Host_Deinitialize_Params", {"host": "pHostObject"}),
    _parameters(
        "HostGetMetricPropertiesParams",
        "CUpti_Profiler_Host_GetMetricProperties_Params",
        {
            "host": "pHostObject",
            "metric_name": "pMetricName",
            "description": "pDescription",
            "hardware_unit": "pHwUnit",
            "dimension": "pDimUnit",
            "metric_type": "metricType",
        },
        is_prefix=True,
    ),
    _parameters(
        "HostConfigAddMetricsParams",
        "CUpti_Profiler_Host_ConfigAddMetrics_Params",
        {"host": "pHostObject", "metric_names": "ppMetricNames", "num_metrics": "numMetrics"},
    ),
    _parameters(
        "HostGetConfigImageSizeParams",
        "CUpti_Profiler_Host_GetConfigImageSize_Params",
        {"host": "pHostObject", "size": "configImageSize"},
    ),
    _parameters(
        "HostGetConfigImageParams",
        "CUpti_Profiler_Host_GetConfigImage_Params",
        {"host": "pHostObject", "size": "configImageSize", "image": "pConfigImage"},
    ),
    _parameters(
        "HostGetNumOfPassesParams",
        "CUpti_Profiler_Host_GetNumOfPasses_Params",
        {"size": "configImageSize", "image": "pConfigImage", "num_passes": "numOfPasses"},
    ),
    _parameters(
        "HostEvaluateParams",
        "CUpti_Profiler_Host_EvaluateToGpuValues_Params",
        {
            "host": "pHostObject",
            "image": "pCounterDataImage",
            "image_size": "counterDataImageSize",
            "index": "rangeIndex",
            "metric_names": "ppMetricNames",
            "num_metrics": "numMetrics",
            "values": "pMetricValues",
        },
    ),
    _parameters(
        "PmSamplingGetCounterAvailabilityParams",
        "CUpti_PmSampling_GetCounterAvailability_Params",
        {"device_index": "deviceIndex", "size": "counterAvailabilityImageSize", "image": "pCounterAvailabilityImage"},
    ),
    _parameters(
        "PmSamplingEnableParams",
        "CUpti_PmSampling_Enable_Params",
        {"device_index": "deviceIndex", "object": "pPmSamplingObject"},
    ),
    _parameters(
        "PmSamplingObjectParams", r"CUpti_PmSampling_(?:Disable|Start|Stop)_Params", {"object": "pPmSamplingObject"}
    ),
    _parameters(
        "PmSamplingSetConfigParams",
        "CUpti_PmSampling_SetConfig_Params",
        {
            "object": "pPmSamplingObject",
            "config_size": "configSize",
            "config": "pConfig",
            "hardware_buffer_size": "hardwareBufferSize",
            "sampling_interval": "samplingInterval",
            "trigger_mode": "triggerMode",
            "append_mode": "hwBufferAppendMode",
        },
    ),
    _parameters(
        "PmSamplingGetCounterDataSizeParams",
        "CUpti_PmSampling_GetCounterDataSize_Params",
        {
            "object": "pPmSamplingObject",
            "metric_names": "pMetricNames",
            "num_metrics": "numMetrics",
            "max_samples": "maxSamples",
            "size": "counterDataSize",
        },
    ),
    _parameters(
        "PmSamplingInitializeImageParams",
        "CUpti_PmSampling_CounterDataImage_Initialize_Params",
        {"object": "pPmSamplingObject", "size": "counterDataSize", "image": "pCounterData"},
    ),
    _parameters(
        "PmSamplingDecodeParams",
        "CUpti_PmSampling_DecodeData_Params",
        {
            "object": "pPmSamplingObject",
            "image": "pCounterDataImage",
            "size": "counterDataImageSize",
            "stop_reason": "decodeStopReason",
            "overflow": "overflow",
        },
    ),
    _parameters(
        "PmSamplingGetCounterDataInfoParams",
        "CUpti_PmSampling_GetCounterDataInfo_Params",
        {
            "image": "pCounterDataImage",
            "size": "counterDataImageSize",
            "num_total": "numTotalSamples",
            "num_populated": "numPopulatedSamples",
            "num_completed": "numCompletedSamples",
        },
    ),
    _parameters(
        "PmSamplingGetSampleInfoParams",
        "CUpti_PmSampling_CounterData_GetSampleInfo_Params",
        {
            "object": "pPmSamplingObject",
            "image": "pCounterDataImage",
            "size": "counterDataImageSize",
            "index": "sampleIndex",
            "start": "startTimestamp",
            "end": "endTimestamp",
        },
    ),
)

_SIZES: Final = {
    f"{struct.ours}{{}}.struct_size": f"{struct.theirs}_STRUCT_SIZE"
    for struct in STRUCTS
    if not struct.is_prefix and struct.theirs.isidentifier()
}
"""How far CUPTI lets a struct go, which may be less than its padded size."""

VALUES: Final = {
    "kErrorInvalidParameter": "CUPTI_ERROR_INVALID_PARAMETER",
    "kErrorInvalidOperation": "CUPTI_ERROR_INVALID_OPERATION",
    "kErrorOutOfMemory": "CUPTI_ERROR_OUT_OF_MEMORY",
    "kErrorInvalidMetricName": "CUPTI_ERROR_INVALID_METRIC_NAME",
    "kErrorHardwareBusy": "CUPTI_ERROR_HARDWARE_BUSY",
    "kErrorNotSupported": "CUPTI_ERROR_NOT_SUPPORTED",
    "kProfilerPmSampling": "CUPTI_PROFILER_TYPE_PM_SAMPLING",
    "kConfigurationUnsupported": "CUPTI_PROFILER_CONFIGURATION_UNSUPPORTED",
    "kConfigurationDisabled": "CUPTI_PROFILER_CONFIGURATION_DISABLED",
    "kConfigurationSupported": "CUPTI_PROFILER_CONFIGURATION_SUPPORTED",
    "kProfilerApiPmSampling": "CUPTI_PROFILER_PM_SAMPLING",
    "kTriggerSysclkInterval": "CUPTI_PM_SAMPLING_TRIGGER_MODE_GPU_SYSCLK_INTERVAL",
    "kTriggerTimeInterval": "CUPTI_PM_SAMPLING_TRIGGER_MODE_GPU_TIME_INTERVAL",
    "kAppendKeepOldest": "CUPTI_PM_SAMPLING_HARDWARE_BUFFER_APPEND_MODE_KEEP_OLDEST",
    "kDecodeCounterDataFull": "CUPTI_PM_SAMPLING_DECODE_STOP_REASON_COUNTER_DATA_FULL",
    "kDecodeEndOfRecords": "CUPTI_PM_SAMPLING_DECODE_STOP_REASON_END_OF_RECORDS",
    **_SIZES,
}

FUNCTIONS: Final = (
    "cuptiProfilerInitialize",
    "cuptiProfilerDeviceSupported",
    "cuptiDeviceGetChipName",
    "cuptiProfilerHostGetSupportedChips",
    "cuptiProfilerHostInitialize",
    "cuptiProfilerHostDeinitialize",
    "cuptiProfilerHostGetMetricProperties",
    "cuptiProfilerHostConfigAddMetrics",
    "cuptiProfilerHostGetConfigImageSize",
    "cuptiProfilerHostGetConfigImage",
    "cuptiProfilerHostGetNumOfPasses",
    "cuptiProfilerHostEvaluateToGpuValues",
    "cuptiPmSamplingGetCounterAvailability",
    "cuptiPmSamplingEnable",
    "cuptiPmSamplingDisable",
    "cuptiPmSamplingSetConfig",
    "cuptiPmSamplingStart",
    "cuptiPmSamplingStop",
    "cuptiPmSamplingGetCounterDataSize",
    "cuptiPmSamplingCounterDataImageInitialize",
    "cuptiPmSamplingDecodeData",
    "cuptiPmSamplingGetCounterDataInfo",
    "cuptiPmSamplingCounterDataGetSampleInfo",
)
