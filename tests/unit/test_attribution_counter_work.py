"""From counts to the work that the power model prices."""

from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.attribution.counter_work import counter_work
from qmeter_native.attribution.kernel_counters import KernelCounters, kernel_counters
from qmeter_native.devices.gpu_database import ChipInfo, chip_info
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.power_model import PowerFeature
from tests.counters import chain, counted

RATES = {quantity: 1e12 * (1 + quantity) for quantity in CounterQuantity}


def counters_of(*quantities: CounterQuantity) -> KernelCounters:
    """One class of kernels of 100 us, whose rates are `RATES`."""
    kernels = chain(np.random.default_rng(0), [100_000], 300)
    counters = kernel_counters(counted(kernels, {quantity: [RATES[quantity]] for quantity in quantities}), 0)
    assert counters is not None
    return counters


def chip() -> ChipInfo:
    """An H200's datasheet."""
    found = chip_info("NVIDIA H200")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("feature", "rate"),
    [
        (PowerFeature.DRAM_BYTES, RATES[CounterQuantity.DRAM_READ_BYTES] + RATES[CounterQuantity.DRAM_WRITE_BYTES]),
        (PowerFeature.L2_BYTES, 32 * RATES[CounterQuantity.L2_SECTORS]),
        (PowerFeature.FP16_FLOP, 4096 * RATES[CounterQuantity.TENSOR_HMMA_CYCLES]),
        (PowerFeature.FP8_FLOP, 8192 * RATES[CounterQuantity.TENSOR_QMMA_CYCLES]),
        (PowerFeature.INT8_OP, 8192 * RATES[CounterQuantity.TENSOR_IMMA_CYCLES]),
        (PowerFeature.INSTRUCTIONS, RATES[CounterQuantity.INSTRUCTIONS]),
        (PowerFeature.SM_SECONDS, RATES[CounterQuantity.SM_ACTIVE_CYCLES] / (132 * 1980e6)),
    ],
)
def test_each_feature_comes_from_its_quantities(feature: PowerFeature, rate: float) -> None:
    counters = counters_of(*CounterQuantity)
    work = counter_work(counters, chip(), [PowerFeature.INSTRUCTIONS, feature])
    assert work.shape == (1, 2)
    assert work[0, 1] == pytest.approx(rate * counters.mean_s[0], rel=1e-3)


def test_8_bit_floats_without_a_counter_of_their_own_count_among_the_16_bit_ones() -> None:
    tensor, hmma = CounterQuantity.TENSOR_CYCLES, CounterQuantity.TENSOR_HMMA_CYCLES
    counters = counters_of(tensor, hmma)
    work = counter_work(counters, chip(), [PowerFeature.FP16_FLOP, PowerFeature.FP8_FLOP])
    assert work.tolist() == [[pytest.approx(4096 * RATES[hmma] * counters.mean_s[0], rel=1e-3), 0.0]]


def test_tensor_cycles_of_no_known_type_are_16_bit_ones() -> None:
    counters = counters_of(CounterQuantity.TENSOR_CYCLES)
    work = counter_work(counters, chip(), [PowerFeature.FP16_FLOP, PowerFeature.INT8_OP, PowerFeature.L2_BYTES])
    expected = 4096 * RATES[CounterQuantity.TENSOR_CYCLES] * counters.mean_s[0]
    assert work.tolist() == [[pytest.approx(expected, rel=1e-3), 0.0, 0.0]]
