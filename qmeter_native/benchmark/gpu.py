"""The GPU that is benchmarked: whether it is there, its energy counter, versions of what runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final

import qmeter_native
from qmeter_native.calibration.gpu import Gpu, cuda_ordinal, gpu_numbered
from qmeter_native.errors import DeviceError, MissingExtraError, UsageError
from qmeter_native.versions import installed_versions

__all__ = ["energy_counter", "find_capability", "find_gpu", "l2_bytes", "software_versions"]

_PACKAGES: Final = ("torch", "triton", "vllm", "gemlite", "bitsandbytes", "autoawq")
_L2_BYTES: Final = 60 << 20
"""An H200's, where torch does not say."""


def find_gpu(device: str) -> Gpu:
    """The GPU that ``cuda`` or ``cuda:N`` names.

    Raises:
        UsageError: It names nothing of the kind.
        MissingExtraError: torch or triton is not installed.
        DeviceError: torch sees no such GPU.
    """
    ordinal = cuda_ordinal(device)
    if ordinal is None:
        raise UsageError(f"kernels cannot be timed on {device!r}", "Give --device cuda:N.")
    missing = [package for package in ("torch", "triton") if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"kernels need {' and '.join(missing)}, not installed here", "pip install 'qmeter-native[kernels]'"
        )
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            "torch sees no GPU, and kernels are timed on an NVIDIA GPU of compute capability 8.0 or newer",
            "`qmeter-native kernels list` works without one, and so does `kernels bench --show FILE.json`.",
        )
    return gpu_numbered(ordinal)


def find_capability() -> tuple[str, tuple[int, int]] | None:
    """Name and compute capability of the first GPU; None where torch sees none or is not here."""
    if find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)


def l2_bytes(ordinal: int) -> int:
    """Size of the second-level cache."""
    import torch

    return int(getattr(torch.cuda.get_device_properties(ordinal), "L2_cache_size", 0)) or _L2_BYTES


def energy_counter(uuid: str) -> Callable[[], int] | None:
    """What reads a GPU's energy counter in millijoules; None where NVML has none."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def software_versions() -> Mapping[str, str]:
    """Ours, and those of the libraries whose kernels run; the driver's and CUDA's where they can be told."""
    found = {"qmeter-native": qmeter_native.__version__, **installed_versions(_PACKAGES)}
    import pynvml
    import torch

    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    try:
        pynvml.nvmlInit()
        found["driver"] = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        pass
    return found
