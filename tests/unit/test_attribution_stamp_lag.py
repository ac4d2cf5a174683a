"""The shift between the stamps of counters and of kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmeter_native.attribution.stamp_lag import stamp_lag_ns
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import CounterTable, KernelTable
from tests.counters import chain, counted, kernel_rows

ACTIVE = CounterQuantity.SM_ACTIVE_CYCLES


@pytest.mark.parametrize("lag_ns", [-40_000, -300, 0, 700, 90_000])
@pytest.mark.parametrize("interval_ns", [10_000, 50_000])
def test_the_lag_of_stamps_is_found_to_a_fraction_of_a_microsecond(lag_ns: int, interval_ns: int) -> None:
    rng = np.random.default_rng(lag_ns + 100_000)
    kernels = chain(rng, [3_000, 60_000, 9_000], 1_500, gap_ns=6_000)
    capture = counted(kernels, {ACTIVE: [2e11, 2.4e11, 1.5e11]}, interval_ns=interval_ns, noise=0.01, lag_ns=lag_ns)
    lag = stamp_lag_ns(capture, 0)
    assert lag.value == pytest.approx(lag_ns, abs=300)
    assert lag.low is not None
    assert lag.high is not None
    assert lag.high - lag.low < 1_000


def test_without_samples_of_sm_activity_there_is_no_lag() -> None:
    capture = counted(chain(np.random.default_rng(0), [9_000], 3_000), {CounterQuantity.DRAM_READ_BYTES: [1e12]})
    assert stamp_lag_ns(capture, 0).value is None
    assert stamp_lag_ns(replace(capture, counters=CounterTable.empty()), 0).value is None


def test_few_samples_and_a_device_without_kernels_say_no_lag() -> None:
    rng = np.random.default_rng(0)
    few = stamp_lag_ns(counted(chain(rng, [9_000], 400), {ACTIVE: [1e11]}), 0)
    assert few.value is None
    assert few.reason is not None
    assert "too few" in few.reason
    capture = counted(chain(rng, [90_000], 1_000), {ACTIVE: [1e11]}, noise=0.01)
    assert stamp_lag_ns(replace(capture, kernels=KernelTable.empty()), 0).value is None


def paced(rng: np.random.Generator, count: int) -> KernelTable:
    """Short kernels on all SMs, and between them, in the same graph of 100 each time, a kernel of one thread."""
    length = np.tile(rng.integers(10_000, 40_000, 100), count // 100) + rng.integers(-300, 300, count)
    gap = np.tile(rng.integers(10_000, 60_000, 100), count // 100)
    pause = rng.integers(800, 1_500, (2, count))
    start = np.cumsum(np.concatenate([[0], (length + gap + pause.sum(axis=0))[:-1]]))
    sleep = start + length + pause[0]
    return kernel_rows(
        np.concatenate([start, sleep]), np.concatenate([start + length, sleep + gap]), np.repeat([0, 1], count)
    )


def with_holes(capture: Capture, rng: np.random.Generator) -> Capture:
    """Stretches of samples lost between bursts."""
    table, kept = capture.counters, np.ones(len(capture.counters), bool)
    for first in rng.integers(len(table), size=8):
        kept[first : first + len(table) // 30] = False
    return replace(capture, counters=table.take(np.flatnonzero(kept)))


@pytest.mark.parametrize("lag_ns", [-2_300, 0, 700])
@pytest.mark.parametrize("interval_ns", [10_000, 20_000, 50_000])
def test_neither_ramps_nor_holes_nor_jitter_bias_the_lag(lag_ns: int, interval_ns: int) -> None:
    rng = np.random.default_rng(interval_ns)
    rates = {ACTIVE: [132 * 1.98e9, 1.98e9]}
    capture = counted(
        paced(rng, 6_000),
        rates,
        interval_ns=interval_ns,
        noise=0.002,
        lag_ns=lag_ns,
        ramp_ns=1_500,
        jitter_ns=17.0,
        rng=rng,
    )
    lag = stamp_lag_ns(with_holes(capture, rng), 0)
    assert lag.value == pytest.approx(lag_ns, abs=100)
    assert lag.low is not None
    assert lag.high is not None
    assert lag.high - lag.low < 200
