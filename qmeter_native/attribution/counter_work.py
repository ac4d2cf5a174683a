"""From counts per launch to the work that the power model prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.kernel_counters import KernelCounters
from qmeter_native.devices.gpu_database import ChipInfo
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.power_model import PowerFeature

__all__ = ["counter_work"]

_Array = NDArray[Any]

_SECTOR_BYTES = 32
_PIPES = {
    PowerFeature.FP16_FLOP: ((CounterQuantity.TENSOR_HMMA_CYCLES, CounterQuantity.TENSOR_CYCLES), "fp16"),
    PowerFeature.FP8_FLOP: ((CounterQuantity.TENSOR_QMMA_CYCLES,), "fp8"),
    PowerFeature.INT8_OP: ((CounterQuantity.TENSOR_IMMA_CYCLES,), "int8"),
}
"""Of each type of operands: the quantities that tell its cycles, best first, and its name in datasheets."""


def counter_work(counters: KernelCounters, chip: ChipInfo, features: Sequence[PowerFeature]) -> _Array:
    """Work of one launch of each kernel class.

    FLOPs are cycles of tensor pipes times the chip's dense rate, so a pipe that waits for operands counts as working.
    8-bit floating point has work of its own only where a chip counts its cycles apart. GH100 does not: its products
    of FP8 appear as 16-bit ones, in half as many cycles as FLOPs of 16 bits would take, so as half the FLOPs. Where
    tensor cycles are not told apart at all, all are 16-bit ones. SM seconds are SM-active cycles over the number of
    SMs and the chip's boost clock.

    Args:
        counters: Counts per launch.
        chip: The device's datasheet.
        features: The columns wanted.

    Returns:
        float64 (C, K); 0 where no quantity that was sampled tells of a feature, and where a class is not measured.
    """
    work = np.zeros((len(counters.is_measured), len(features)))
    for column, feature in enumerate(features):
        work[:, column] = _feature(counters, chip, feature)
    return work


def _feature(counters: KernelCounters, chip: ChipInfo, feature: PowerFeature) -> _Array:
    def count(quantity: CounterQuantity) -> _Array:
        found = counters.of_quantity(quantity)
        return np.zeros(len(counters.is_measured)) if found is None else found

    if feature is PowerFeature.DRAM_BYTES:
        return count(CounterQuantity.DRAM_READ_BYTES) + count(CounterQuantity.DRAM_WRITE_BYTES)
    if feature is PowerFeature.L2_BYTES:
        return count(CounterQuantity.L2_SECTORS) * _SECTOR_BYTES
    if feature is PowerFeature.INSTRUCTIONS:
        return count(CounterQuantity.INSTRUCTIONS)
    if feature is PowerFeature.SM_SECONDS:
        return count(CounterQuantity.SM_ACTIVE_CYCLES) / (chip.num_sms * chip.boost_mhz * 1e6)
    quantities, operands = _PIPES[feature]
    sampled = next((quantity for quantity in quantities if quantity in counters.quantities), quantities[0])
    return count(sampled) * chip.flop_per_sm_cycle.get(operands, 0.0)
