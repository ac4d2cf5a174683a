"""The GPU that is calibrated, and whether this machine has what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from qmeter_native.devices.gpu_database import ChipInfo, chip_info
from qmeter_native.errors import DeviceError, MissingExtraError, UsageError

__all__ = ["Gpu", "cuda_ordinal", "find_gpu", "gpu_numbered"]

_EXTRAS: Final = {"torch": "engine", "cupy": "cuda"}
_INSTALL: Final = "pip install 'qmeter-native[engine,cuda]'"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU by CUDA's number.

    Attributes:
        ordinal: CUDA's number.
        name: The vendor's name.
        uuid: NVML's UUID.
        compute_capability: Such as ``9.0``.
        chip: Its datasheet; None if it is not in the database.
    """

    ordinal: int
    name: str
    uuid: str
    compute_capability: str
    chip: ChipInfo | None


def find_gpu(device: str) -> Gpu:
    """The GPU that ``cuda`` or ``cuda:N`` names. Creates no context.

    Raises:
        UsageError: It names nothing of the kind.
        MissingExtraError: torch or cupy is not installed.
        DeviceError: torch sees no such GPU.
    """
    ordinal = cuda_ordinal(device)
    if ordinal is None:
        raise UsageError(f"{device!r} cannot be calibrated", "Give --device cuda:N; CPUs need no calibration.")
    missing = [package for package in _EXTRAS if find_spec(package) is None]
    if missing:
        raise MissingExtraError(f"calibration needs {' and '.join(missing)}, not installed here", _INSTALL)
    import torch

    if not torch.cuda.is_available():
        hint = "`qmeter-native doctor` says what is missing; without a GPU, reports use datasheet-based defaults."
        raise DeviceError("torch sees no GPU to calibrate", hint)
    return gpu_numbered(ordinal)


def cuda_ordinal(device: str) -> int | None:
    """CUDA's number in ``cuda`` or ``cuda:N``; None if it is neither."""
    kind, _, number = device.partition(":")
    return int(number or 0) if kind == "cuda" and (number or "0").isdigit() else None


def gpu_numbered(ordinal: int) -> Gpu:
    """The GPU of this number, where torch sees any. Creates no context.

    Raises:
        DeviceError: torch does not see it.
    """
    import torch

    if ordinal >= torch.cuda.device_count():
        raise DeviceError(
            f"there is no cuda:{ordinal}: torch sees {torch.cuda.device_count()}", "Give another --device."
        )
    properties = torch.cuda.get_device_properties(ordinal)
    capability = f"{properties.major}.{properties.minor}"
    return Gpu(ordinal, properties.name, f"GPU-{properties.uuid}", capability, chip_info(properties.name, capability))
