"""What of our own declarations in ``csrc/abi`` is compared with NVIDIA's headers: one table a library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["TABLES", "AbiStruct", "AbiTable"]


@dataclass(frozen=True, slots=True)
class AbiStruct:
    """A struct of ours and all versions of the vendor's that it must fit.

    Attributes:
        ours: Its name in our namespace.
        theirs: Regular expression of the vendor's names. A group in it is a version number.
        fields: The vendor's field for each of ours.
        oldest: Versions below this are not compared.
        is_prefix: Ours may end earlier: the vendor appends fields.
    """

    ours: str
    theirs: str
    fields: Mapping[str, str]
    oldest: int = 0
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class AbiTable:
    """One library.

    Attributes:
        name: For messages.
        header: Ours, below ``csrc``.
        namespace: In which it declares.
        vendor_headers: To include, in this order.
        packages: Distributions that hold the headers, by a label for each version.
        values: The vendor's constant for each of ours.
        structs: Structs.
        functions: Exported names; ours is a function type of the same name.
    """

    name: str
    header: str
    namespace: str
    vendor_headers: tuple[str, ...]
    packages: Mapping[str, tuple[str, ...]]
    values: Mapping[str, str] = field(default_factory=dict)
    structs: tuple[AbiStruct, ...] = ()
    functions: tuple[str, ...] = ()


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

_CUDA_DRIVER: Final = AbiTable(
    name="CUDA driver",
    header="abi/cuda_driver.h",
    namespace="qmeter::cuda",
    vendor_headers=("cuda.h",),
    packages=_CUDA,
    values={
        "kSuccess": "CUDA_SUCCESS",
        "kErrorNoDevice": "CUDA_ERROR_NO_DEVICE",
        "kErrorInvalidContext": "CUDA_ERROR_INVALID_CONTEXT",
        "kErrorInvalidHandle": "CUDA_ERROR_INVALID_HANDLE",
    },
    functions=(
        "cuInit",
        "cuGetErrorName",
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

TABLES: Final = (_CUPTI, _CUDA_DRIVER)
