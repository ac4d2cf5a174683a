"""Kernels of ``csrc/cuda``, compiled on the spot, and how long a launch of anything takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from qmeter_native.errors import DeviceError

__all__ = ["CudaKernels", "LaunchTimes", "SmClock", "cuda_source", "time_launches"]

_THREADS: Final = 256
_BLOCKS_AN_SM: Final = 8
"""Of 256 threads: all 2048 that an SM of a data-centre part can hold."""

_FMA_A_ROUND: Final = 8 * 16
_VECTOR_BYTES: Final = 16
_BURST_S: Final = 0.02
_REST_S: Final = 0.08
"""The power controller of an H200 takes about 100 ms to bite: bursts of 20 ms and four times as long a rest keep the
clock where it is."""

_CLOCK_PERIOD_S: Final = 0.002
_MAX_LAUNCHES: Final = 4000


@dataclass(frozen=True, slots=True)
class LaunchTimes:
    """Seconds a launch in each burst, and the median SM clock during the bursts in MHz; None if it was not read."""

    seconds: tuple[float, ...]
    clock_mhz: float | None


def cuda_source(name: str) -> str:
    """Text of ``csrc/cuda/NAME``; a wheel has it in ``qmeter_native/cuda``."""
    installed = files("qmeter_native") / "cuda" / name
    if installed.is_file():
        return installed.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "csrc" / "cuda" / name).read_text(encoding="utf-8")


class CudaKernels:
    """The kernels of ``csrc/cuda`` on one GPU. Launches go to CUDA's default stream, which is torch's as well.

    Args:
        ordinal: CUDA's number of the GPU.

    Raises:
        DeviceError: They do not compile here.
    """

    def __init__(self, ordinal: int) -> None:
        import cupy
        import torch

        self._device = cupy.cuda.Device(ordinal)
        self.grid: int = torch.cuda.get_device_properties(ordinal).multi_processor_count * _BLOCKS_AN_SM
        self._sink = torch.zeros(self.grid, dtype=torch.float32, device=f"cuda:{ordinal}")
        self._functions: dict[str, Any] = {}
        try:
            with self._device:
                for file, names in {"memory.cu": ("read", "write", "copy"), "fma.cu": ("fma",)}.items():
                    module = cupy.RawModule(code=cuda_source(file), options=("--std=c++17",))
                    self._functions |= {name: module.get_function(f"qmeter_{name}") for name in names}
        except Exception as error:  # cupy, NVRTC and the driver each have exceptions of their own
            raise DeviceError(
                f"the microbenchmark kernels do not compile on cuda:{ordinal}: {error}",
                "cupy must suit CUDA's version: pip install 'qmeter-native[cuda]'.",
            ) from error

    def read(self, source: Any, num_passes: int = 1) -> None:
        """Read all of a tensor ``num_passes`` times; its size is a multiple of 16 bytes."""
        self._launch("read", _pointer(source), _num_vectors(source), np.int32(num_passes), _pointer(self._sink))

    def write(self, target: Any, seed: int) -> None:
        """Fill a tensor with scrambled numbers."""
        self._launch("write", _pointer(target), _num_vectors(target), np.uint32(seed))

    def copy(self, source: Any, target: Any) -> None:
        """Copy a tensor to another of its size."""
        self._launch("copy", _pointer(source), _pointer(target), _num_vectors(source))

    def fma(self, num_rounds: int) -> float:
        """Multiply and add in single precision; the number of FLOP that this launch does."""
        self._launch("fma", _pointer(self._sink), np.float32(0.9997), np.float32(0.0137), np.int32(num_rounds))
        return 2.0 * _FMA_A_ROUND * num_rounds * self.grid * _THREADS

    @property
    def wave_bytes(self) -> int:
        """What all threads together have under way in `read`: sizes that are multiples of it keep every thread busy."""
        return self.grid * _THREADS * 4 * _VECTOR_BYTES

    def _launch(self, name: str, *arguments: Any) -> None:
        with self._device:
            self._functions[name]((self.grid,), (_THREADS,), arguments)


def _pointer(tensor: Any) -> Any:
    return np.uint64(tensor.data_ptr())


def _num_vectors(tensor: Any) -> Any:
    return np.uint64(tensor.numel() * tensor.element_size() // _VECTOR_BYTES)


class SmClock:
    """Reads one GPU's SM clock through NVML, which changes nothing; reads None where NVML does not answer."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml = pynvml
        self._handle: Any = None
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError:  # the clock is shown beside a rate, which stands without it
            return

    def mhz(self) -> float | None:
        """Now."""
        if self._handle is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM))
        except self._nvml.NVMLError:
            return None


def time_launches(launch: Callable[[], Any], ordinal: int, clock: SmClock, num_bursts: int) -> LaunchTimes:
    """Time ``launch`` in ``num_bursts`` bursts of 20 ms with rests between, so that no power limit is felt.

    The first launches, which compile and choose algorithms, are not timed, nor are a few before each burst.
    """
    import torch

    with torch.cuda.device(ordinal):
        for _ in range(3):
            launch()
        torch.cuda.synchronize()
        first_s, _ = _burst(launch, 3, clock)
        num_launches = min(max(1, math.ceil(_BURST_S / first_s)), _MAX_LAUNCHES)
        seconds, clocks = [], []
        for _ in range(num_bursts):
            time.sleep(_REST_S)
            one_s, readings = _burst(launch, num_launches, clock)
            seconds.append(one_s)
            clocks += readings
    return LaunchTimes(tuple(seconds), statistics.median(clocks) if clocks else None)


def _burst(launch: Callable[[], Any], num_launches: int, clock: SmClock) -> tuple[float, list[float]]:
    """Seconds a launch, and SM clocks read meanwhile."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(max(1, num_launches // 10)):
        launch()
    begin.record()
    for _ in range(num_launches):
        launch()
    end.record()
    readings = []
    while not end.query():
        if (mhz := clock.mhz()) is not None:
            readings.append(mhz)
        time.sleep(_CLOCK_PERIOD_S)
    return begin.elapsed_time(end) / 1e3 / num_launches, readings
