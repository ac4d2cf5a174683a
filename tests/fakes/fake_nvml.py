"""Python's side of the fake libnvidia-ml: what `fake_nvml.h` declares."""

from __future__ import annotations

import ctypes
from pathlib import Path

__all__ = ["GPU_IS_LOST", "NOT_SUPPORTED", "NO_PERMISSION", "FakeNvml", "fake_uuid"]

NOT_SUPPORTED, NO_PERMISSION, GPU_IS_LOST = 3, 4, 15


def fake_uuid(device: int) -> str:
    """UUID of a GPU, by NVML's index; the fake libcuda gives the same."""
    return f"GPU-fa4e{device:04x}-0000-0000-0000-000000000000"


class FakeNvml:
    """A loaded fake. Every test begins with `reset`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)
        for name in ("fake_nvml_num_calls", "fake_nvml_energy_uj", "fake_nvml_tick_ns"):
            getattr(self._library, name).restype = ctypes.c_longlong

    def reset(self, num_devices: int = 1, **settings: int) -> None:
        """Begin again with ``num_devices`` GPUs, all with these settings."""
        self._library.fake_nvml_reset(ctypes.c_uint(num_devices))
        for device in range(num_devices):
            self.set(device, **settings)

    def set(self, device: int, **settings: int) -> None:
        for key, value in settings.items():
            code = self._library.fake_nvml_set(ctypes.c_uint(device), key.encode(), ctypes.c_longlong(value))
            assert code == 0, key

    def set_library(self, key: str, value: int) -> None:
        assert self._library.fake_nvml_set_library(key.encode(), ctypes.c_longlong(value)) == 0, key

    def num_calls(self, device: int, call: str) -> int:
        return int(self._library.fake_nvml_num_calls(ctypes.c_uint(device), call.encode()))

    def energy_uj(self, device: int, time_ns: int) -> int:
        """Energy spent from the reset to ``time_ns`` (CLOCK_REALTIME)."""
        return int(self._library.fake_nvml_energy_uj(ctypes.c_uint(device), ctypes.c_longlong(time_ns)))

    def tick_ns(self, device: int, time_ns: int) -> int:
        """The counter's last tick at or before ``time_ns``."""
        return int(self._library.fake_nvml_tick_ns(ctypes.c_uint(device), ctypes.c_longlong(time_ns)))
