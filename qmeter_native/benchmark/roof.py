"""The roof of a GPU: the least time that its memory or its arithmetic allows a product (Williams et al. 2009)."""

from __future__ import annotations

from qmeter_native.devices.gpu_database import ChipInfo
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.kernel_benchmark import Roof
from qmeter_native.work.gemm_work import Work

__all__ = ["find_roof", "roof_time"]

_READ = "dram_read"
_16_BIT = {"float16": "fp16", "bfloat16": "bf16"}


def find_roof(profile: DeviceProfile | None, chip: ChipInfo | None) -> Roof:
    """By what calibration measured on this very GPU, else by its datasheet, else unknown."""
    measured = {} if profile is None else {one.name: one.measured.value for one in profile.ceilings}
    rates = {name: value for name, value in measured.items() if value is not None}
    if _READ in rates:
        read_bytes_s = rates[_READ]
        others = {name: value for name, value in rates.items() if not name.startswith(("dram_", "l2_"))}
        return Roof("measured", read_bytes_s, others)
    if chip is not None:
        return Roof("datasheet", chip.dram_bytes_s, dict(chip.peak_flop_s))
    return Roof("unknown", None, {})


def roof_time(roof: Roof, work: Work, ceiling: str, dtype: str) -> tuple[float | None, str | None]:
    """Seconds that a product takes at least, and ``memory`` or ``compute``, whichever asks for them.

    Both are None where the roof lacks a rate. Bytes that are written count as if they were read.

    Args:
        roof: Rates.
        work: Of the product.
        ceiling: Its format's, such as ``int8``.
        dtype: Of 16-bit operands, which have rates of their own.
    """
    name = _16_BIT.get(dtype, ceiling) if ceiling == "fp16" else ceiling
    if roof.read_bytes_s is None or name not in roof.op_s:
        return None, None
    memory_s, compute_s = work.bytes / roof.read_bytes_s, work.flops / roof.op_s[name]
    return max(memory_s, compute_s), "memory" if memory_s >= compute_s else "compute"
