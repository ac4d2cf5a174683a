"""Counters per kernel class against captures whose true rates are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qmeter_native.attribution.kernel_counters import KernelCounters, kernel_counters
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import CounterTable, KernelTable, TraceWindowTable
from tests.counters import chain, counted, kernel_rows
from tests.factories import T0

READ, WRITE, ACTIVE = (
    CounterQuantity.DRAM_READ_BYTES,
    CounterQuantity.DRAM_WRITE_BYTES,
    CounterQuantity.SM_ACTIVE_CYCLES,
)


def measured(capture: Capture) -> KernelCounters:
    """Counters of device 0, which the capture has."""
    counters = kernel_counters(capture, 0)
    assert counters is not None
    return counters


def relative_error(counters: KernelCounters, rates: list[float], column: int = 0) -> NDArray[Any]:
    """Of the counts per launch, where the true rate is not 0."""
    true = np.array(rates) * counters.mean_s
    error: NDArray[Any] = counters.per_launch[true > 0, column] / true[true > 0] - 1
    return error


def test_kernels_much_shorter_and_longer_than_a_sample_get_what_they_did() -> None:
    rates = [2e12, 3e11, 5e10, 1e12, 4e12]
    kernels = chain(np.random.default_rng(1), [3_000, 9_000, 15_000, 220_000, 7_000], 2_000)
    counters = measured(counted(kernels, {READ: rates}, noise=0.005))
    assert counters.is_measured.all()
    np.testing.assert_allclose(relative_error(counters, rates), 0, atol=0.03)


def test_streams_that_overlap_are_told_apart_by_their_random_phases() -> None:
    rng = np.random.default_rng(2)
    one = chain(rng, [11_000, 26_000], 4_000)
    other = chain(rng, [17_000], 6_000, gap_ns=9_000)
    start, end = np.concatenate([one.start_ns, other.start_ns]) - T0, np.concatenate([one.end_ns, other.end_ns]) - T0
    class_id = np.concatenate([one.class_id, other.class_id + 2])
    rates = [3e12, 5e11, 1e12]
    counters = measured(counted(kernel_rows(start, end, class_id, np.array(0)), {READ: rates}))
    np.testing.assert_allclose(relative_error(counters, rates), 0, atol=0.02)


def test_what_is_counted_while_nothing_runs_is_background_and_no_kernels() -> None:
    rates = [1e12, 2e12]
    kernels = chain(np.random.default_rng(3), [8_000, 5_000], 4_000, gap_ns=60_000)
    counters = measured(counted(kernels, {READ: rates}, background=5e10))
    np.testing.assert_allclose(relative_error(counters, rates), 0, atol=0.01)
    np.testing.assert_allclose(counters.background, 5e10, rtol=0.05)


def test_a_class_that_does_none_of_a_quantity_gets_almost_none_of_it() -> None:
    rates = [1e12, 0.0, 2e12]
    kernels = chain(np.random.default_rng(4), [8_000, 6_000, 9_000], 3_000)
    counters = measured(counted(kernels, {READ: rates}, noise=0.01))
    assert 0 <= counters.per_launch[1, 0] <= max(2 * counters.error[1, 0], 0.02 * counters.per_launch[0, 0])


def test_standard_errors_cover_the_truth() -> None:
    inside = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rates = rng.uniform(2e11, 3e12, 4)
        capture = counted(chain(rng, [3_000, 8_000, 30_000, 150_000], 300), {READ: list(rates)}, noise=0.05, rng=rng)
        counters = measured(capture)
        inside.append(np.abs(counters.per_launch[:, 0] - rates * counters.mean_s) <= 1.96 * counters.error[:, 0])
    assert 0.88 <= np.mean(inside) <= 1.0


def test_a_class_of_few_launches_is_not_measured_and_its_counts_are_in_the_rest() -> None:
    frequent = chain(np.random.default_rng(5), [9_000, 4_000], 2_000)
    late = int(frequent.end_ns[-1]) - T0 + 1_000
    start = np.concatenate([frequent.start_ns - T0, late + np.arange(5) * 10_000])
    end = np.concatenate([frequent.end_ns - T0, late + np.arange(5) * 10_000 + 6_000])
    rates = [1e12, 2e12, 3e12]
    kernels = kernel_rows(start, end, np.concatenate([frequent.class_id, np.full(5, 2)]))
    counters = measured(counted(kernels, {READ: rates}))
    assert counters.is_measured.tolist() == [True, True, False]
    assert counters.num_launches.tolist() == [2_000, 2_000, 5]
    np.testing.assert_allclose(counters.rest[0], 5 * 6e-6 * 3e12, rtol=0.1)


def test_quantities_that_were_never_counted_are_zero_without_an_error() -> None:
    kernels = chain(np.random.default_rng(6), [9_000, 4_000], 2_000)
    counters = measured(counted(kernels, {READ: [1e12, 2e12], WRITE: [0.0, 0.0]}))
    assert not counters.per_launch[:, 1].any()
    assert counters.of_quantity(CounterQuantity.L2_SECTORS) is None


def test_samples_outside_traced_time_are_not_looked_at() -> None:
    kernels = chain(np.random.default_rng(7), [9_000, 4_000], 4_000)
    middle = int(kernels.start_ns[len(kernels) // 2])
    capture = counted(kernels, {READ: [1e12, 2e12]})
    windows = TraceWindowTable.from_columns(process=[0], start_ns=[T0], end_ns=[middle])
    untraced = replace(capture, kernels=kernels.take(kernels.end_ns < middle), trace_windows=windows)
    counters = measured(untraced)
    assert counters.num_samples < len(capture.counters)
    np.testing.assert_allclose(relative_error(counters, [1e12, 2e12]), 0, atol=0.01)


def test_a_sample_that_lacks_a_quantity_and_one_stretched_over_a_loss_are_left_out() -> None:
    capture = counted(chain(np.random.default_rng(8), [9_000], 2_000), {READ: [1e12], WRITE: [2e12]})
    kept = np.ones(len(capture.counters), bool)
    kept[100] = False
    table = capture.counters.take(kept)
    start_ns = table.start_ns.copy()
    start_ns[table.end_ns == np.unique(table.end_ns)[300]] -= 2_000_000
    table = CounterTable.from_columns(
        **{spec.name: getattr(table, spec.name) for spec in CounterTable.columns()} | {"start_ns": start_ns}
    )
    assert measured(replace(capture, counters=table)).num_samples == len(capture.counters) // 2 - 2


def test_a_device_without_samples_has_no_counters() -> None:
    capture = counted(chain(np.random.default_rng(9), [9_000], 100), {READ: [1e12]})
    assert kernel_counters(capture, 1) is None
    assert kernel_counters(replace(capture, counters=CounterTable.empty()), 0) is None


def test_samples_without_any_kernel_are_all_background() -> None:
    capture = counted(chain(np.random.default_rng(10), [9_000], 1_000), {ACTIVE: [1e12]}, background=3e10)
    counters = measured(replace(capture, kernels=KernelTable.empty()))
    assert not counters.is_measured.any()
    np.testing.assert_allclose(counters.rest, counters.total)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    mean_ns=st.lists(st.integers(500, 200_000), min_size=1, max_size=6),
    background=st.sampled_from([0.0, 1e9]),
    noise=st.sampled_from([0.0, 0.3]),
)
def test_what_is_shared_out_adds_up_to_what_was_counted(
    seed: int, mean_ns: list[int], background: float, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    rates = {quantity: list(rng.uniform(0, 1e12, len(mean_ns))) for quantity in (READ, WRITE)}
    capture = counted(chain(rng, mean_ns, 200), rates, background=background, noise=noise, rng=rng)
    counters = kernel_counters(capture, 0)
    if counters is None:  # fewer than 50 samples
        return
    sums = counters.shared.sum(axis=0) + counters.rest + counters.unshared
    np.testing.assert_allclose(sums, counters.total, rtol=1e-9)
    assert (counters.shared >= 0).all()
    assert (np.abs(counters.unshared) <= 1e-3 * counters.total).all()
