"""CUDA's numbering of GPUs against NVML's: ``CUDA_VISIBLE_DEVICES`` hides and reorders, NVML sees all."""

from __future__ import annotations

import os
from collections.abc import Sequence

from qmeter_native.model.manifest import DeviceInfo

__all__ = ["cuda_ordinals"]


def cuda_ordinals(devices: Sequence[DeviceInfo], visible: str | None = None) -> list[int]:
    """For each CUDA ordinal the position in ``devices`` (NVML's order), by the rules of ``CUDA_VISIBLE_DEVICES``.

    Args:
        devices: The GPUs that NVML lists, in its order.
        visible: The variable's value; by default read from the environment.

    The list ends at the first entry that names no GPU, as in CUDA. Positions in the variable count in PCI bus order,
    which is NVML's; ``CUDA_DEVICE_ORDER=FASTEST_FIRST`` can differ on hosts with unlike GPUs. A MIG slice counts as its
    GPU; on a host with several its name must hold the GPU's.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    if visible is None:
        return list(range(len(devices)))
    found: list[int] = []
    for entry in (word.strip() for word in visible.split(",")):
        position = _position(devices, entry)
        if position is None or position in found:
            break
        found.append(position)
    return found


def _position(devices: Sequence[DeviceInfo], entry: str) -> int | None:
    if entry.isdigit():
        return int(entry) if int(entry) < len(devices) else None
    if entry.startswith("MIG-"):  # a slice; before driver 470 as MIG-GPU-<uuid>/<instance>/<instance>, then without
        if len(devices) == 1:
            return 0
        entry = entry.removeprefix("MIG-").partition("/")[0]
    matches = [index for index, device in enumerate(devices) if entry and device.uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None
