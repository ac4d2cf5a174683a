"""What a GPU can reach: bytes a second of DRAM and L2, operations a second of each type, measured in short bursts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from qmeter_native.calibration.microbenchmark import CudaKernels, SmClock, time_launches
from qmeter_native.calibration.repeats import median_estimate
from qmeter_native.devices.gpu_database import ChipInfo
from qmeter_native.model.device_profile import Ceiling
from qmeter_native.model.estimate import Estimate

__all__ = ["CEILING_NAMES", "measure_ceilings"]

_SIDE: Final = 8192
"""Of the square matrices: 0.4 GB of 16-bit operands, which is more than 4 L2s, and 1.1 TFLOP a product."""

_DRAM_BYTES: Final = 1 << 30
_L2_SIZES: Final = 8
"""DRAM is measured on 1 GiB, or 8 times the L2 if that is more: at most an eighth can be served from L2."""

_L2_SHARE: Final = 0.4
"""Of the L2, in the set that is read from it: other data needs some, and parts with two partitions keep copies."""

_L2_PASSES: Final = 64
_FMA_ROUNDS: Final = 2048
_L2_BYTES: Final = 60 << 20
"""An H200's, where torch does not say."""


@dataclass(frozen=True, slots=True)
class _Load:
    """One launch and what it does."""

    launch: Callable[[], Any]
    work: float
    kernel: str


@dataclass(frozen=True, slots=True)
class _Rate:
    name: str
    unit: str
    lowest_capability: tuple[int, int]
    build: Callable[[int], _Load]


def measure_ceilings(ordinal: int, uuid: str, chip: ChipInfo | None, num_bursts: int = 9) -> Iterator[Ceiling]:
    """Measure one ceiling after the other; what cannot be measured comes with the reason.

    Args:
        ordinal: CUDA's number of the GPU.
        uuid: NVML's UUID of it, for its clock.
        chip: Its datasheet, to stand beside what is measured.
        num_bursts: Bursts of 20 ms a ceiling; 6 is the fewest that give an interval.
    """
    clock = SmClock(uuid)
    for rate in _RATES:
        yield _measure(rate, ordinal, clock, chip, num_bursts)


def _measure(rate: _Rate, ordinal: int, clock: SmClock, chip: ChipInfo | None, num_bursts: int) -> Ceiling:
    import torch

    datasheet = _datasheet(rate.name, chip)
    if torch.cuda.get_device_capability(ordinal) < rate.lowest_capability:
        return Ceiling(rate.name, rate.unit, Estimate.missing("this GPU has no tensor pipes for it"), datasheet)
    try:
        load = rate.build(ordinal)
        times = time_launches(load.launch, ordinal, clock, num_bursts)
    except Exception as error:  # libraries raise what they like; a ceiling less is no reason to lose the others
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Ceiling(rate.name, rate.unit, Estimate.missing(reason), datasheet)
    finally:
        torch.cuda.empty_cache()
    measured = median_estimate([load.work / seconds for seconds in times.seconds])
    return Ceiling(rate.name, rate.unit, measured, datasheet, times.clock_mhz, load.kernel)


def _datasheet(name: str, chip: ChipInfo | None) -> float | None:
    if chip is None:
        return None
    return chip.dram_bytes_s if name.startswith("dram_") else chip.peak_flop_s.get(name)


@cache
def _kernels(ordinal: int) -> CudaKernels:
    return CudaKernels(ordinal)


def _random_bytes(ordinal: int, num_bytes: int) -> Any:
    import torch

    return torch.randint(-(2**31), 2**31, (num_bytes // 4,), dtype=torch.int32, device=f"cuda:{ordinal}")


def _l2_bytes(ordinal: int) -> int:
    import torch

    return int(getattr(torch.cuda.get_device_properties(ordinal), "L2_cache_size", 0)) or _L2_BYTES


def _dram_size(ordinal: int) -> int:
    return max(_DRAM_BYTES, _L2_SIZES * _l2_bytes(ordinal))


def _dram_read(ordinal: int) -> _Load:
    kernels, source = _kernels(ordinal), _random_bytes(ordinal, _dram_size(ordinal))
    return _Load(lambda: kernels.read(source), _dram_size(ordinal), "qmeter_read")


def _dram_write(ordinal: int) -> _Load:
    kernels, target = _kernels(ordinal), _random_bytes(ordinal, _dram_size(ordinal))
    return _Load(lambda: kernels.write(target, 12345), _dram_size(ordinal), "qmeter_write")


def _dram_copy(ordinal: int) -> _Load:
    kernels = _kernels(ordinal)
    source, target = (_random_bytes(ordinal, _dram_size(ordinal)) for _ in range(2))
    return _Load(lambda: kernels.copy(source, target), 2 * _dram_size(ordinal), "qmeter_copy")


def _l2_read(ordinal: int) -> _Load:
    kernels = _kernels(ordinal)
    wanted = int(_L2_SHARE * _l2_bytes(ordinal))
    num_bytes = wanted // kernels.wave_bytes * kernels.wave_bytes or wanted // 16 * 16
    source = _random_bytes(ordinal, num_bytes)
    return _Load(lambda: kernels.read(source, _L2_PASSES), _L2_PASSES * num_bytes, "qmeter_read")


def _fp32(ordinal: int) -> _Load:
    kernels = _kernels(ordinal)
    return _Load(lambda: kernels.fma(_FMA_ROUNDS), kernels.fma(_FMA_ROUNDS), "qmeter_fma")


def _matrix(ordinal: int) -> Any:
    import torch

    return torch.randn(_SIDE, _SIDE, device=f"cuda:{ordinal}")


def _gemm_16(ordinal: int, dtype: str) -> _Load:
    import torch

    left, right = (_matrix(ordinal).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(left)
    return _Load(lambda: torch.mm(left, right, out=out), 2.0 * _SIDE**3, f"torch.mm {dtype} {_SIDE}^3")


def _gemm_fp8(ordinal: int) -> _Load:
    import torch

    left, right = (_matrix(ordinal).to(torch.float8_e4m3fn) for _ in range(2))
    right = right.t()  # the library wants the second operand column by column
    scale = torch.ones((), device=f"cuda:{ordinal}")

    def launch() -> Any:
        return torch._scaled_mm(
            left, right, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    return _Load(launch, 2.0 * _SIDE**3, f"torch._scaled_mm e4m3 {_SIDE}^3")


def _gemm_int8(ordinal: int) -> _Load:
    import torch

    shape, device = (_SIDE, _SIDE), f"cuda:{ordinal}"
    left, right = (torch.randint(-128, 128, shape, dtype=torch.int8, device=device) for _ in range(2))
    right = right.t()  # with both row by row cuBLAS takes a kernel of a tenth of the rate: 128 TOP/s on an H200
    return _Load(lambda: torch._int_mm(left, right), 2.0 * _SIDE**3, f"torch._int_mm {_SIDE}^3")


_RATES: Final = (
    _Rate("dram_read", "B/s", (0, 0), _dram_read),
    _Rate("dram_write", "B/s", (0, 0), _dram_write),
    _Rate("dram_copy", "B/s", (0, 0), _dram_copy),
    _Rate("l2_read", "B/s", (0, 0), _l2_read),
    _Rate("fp32", "FLOP/s", (0, 0), _fp32),
    _Rate("fp16", "FLOP/s", (7, 0), lambda ordinal: _gemm_16(ordinal, "float16")),
    _Rate("bf16", "FLOP/s", (8, 0), lambda ordinal: _gemm_16(ordinal, "bfloat16")),
    _Rate("fp8", "FLOP/s", (8, 9), _gemm_fp8),
    _Rate("int8", "OP/s", (7, 5), _gemm_int8),
)

CEILING_NAMES: Final = tuple(rate.name for rate in _RATES)
"""In the order in which they are measured."""
