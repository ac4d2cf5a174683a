"""Devices as a traced process numbers them → indexes of the capture's devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qmeter_native.capture.cuda_ordinals import cuda_ordinals
from qmeter_native.capture.session_state import SessionState
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.tables import KernelClassTable, StepTable
from qmeter_native.storage.spool import SpoolContents

__all__ = ["device_of_uuid", "kernel_devices", "mapped_devices", "step_devices"]


def mapped_devices(devices: NDArray[Any], indexes: NDArray[np.int16] | None) -> NDArray[Any]:
    """``devices`` (int16) through a map as `kernel_devices` gives it."""
    if indexes is None or not len(devices):
        return devices
    if devices.min() == devices.max():  # as in nearly all blocks of records: ten times as fast
        return np.full(len(devices), int(indexes[min(int(devices[0]), len(indexes) - 1)]), np.int16)
    mapped: NDArray[Any] = indexes[np.minimum(devices, len(indexes) - 1)]
    return mapped


def kernel_devices(spool: SpoolContents, state: SessionState) -> NDArray[np.int16] | None:
    """Device index by CUDA ordinal, which is how CUPTI numbers devices; the last entry, -1, is for any further ordinal.

    None if the spool has indexes already: its kernels are operators on a CPU. The process itself said which GPUs it
    sees; where it did not, the session's own environment counts.
    """
    classes = cast(KernelClassTable, spool.tables[KernelClassTable.NAME])
    if (classes.kind == ActivityKind.OPERATOR).any():
        return None
    return _by_ordinal(spool.stats.get("inject", {}).get("gpu_uuids"), state)


def step_devices(spool: SpoolContents, gpu_uuids: Sequence[str], state: SessionState) -> NDArray[Any]:
    """Device index of each step of a spool.

    Args:
        spool: Steps of the session's own process have indexes already; those of an engine's plugin have ordinals.
        gpu_uuids: The GPUs that the process sees, by CUDA ordinal; empty if unknown.
        state: The session's.
    """
    steps = cast(StepTable, spool.tables[StepTable.NAME])
    engine = spool.stats.get("engine")
    if engine is None:
        return steps.device
    index = device_of_uuid(state.devices, engine.get("device_uuid") or "")
    if index is not None:
        return np.full(len(steps), index, np.int16)
    return mapped_devices(steps.device, _by_ordinal(gpu_uuids, state))


def device_of_uuid(devices: Sequence[DeviceInfo], uuid: str) -> int | None:
    """Index of the GPU with this UUID, or of the one that the MIG slice of this name is part of; None if unlisted."""
    gpus = [device for device in devices if device.kind == "cuda"]
    position = next(iter(cuda_ordinals(gpus, uuid)), None)
    return None if position is None else gpus[position].index


def _by_ordinal(gpu_uuids: Sequence[str] | None, state: SessionState) -> NDArray[np.int16] | None:
    if not gpu_uuids:
        return np.array([*state.cuda_devices, -1], np.int16) if state.cuda_devices else None
    found = [device_of_uuid(state.devices, uuid) for uuid in gpu_uuids]
    return np.array([*(-1 if index is None else index for index in found), -1], np.int16)
