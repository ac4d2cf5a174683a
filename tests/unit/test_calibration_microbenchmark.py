from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.calibration.microbenchmark import cuda_source
from qmeter_native.calibration.repeats import median_estimate


@pytest.mark.parametrize(
    ("file", "kernels"), [("memory.cu", ("qmeter_read", "qmeter_write", "qmeter_copy")), ("fma.cu", ("qmeter_fma",))]
)
def test_the_sources_of_the_microbenchmarks_are_found_and_need_no_header(file: str, kernels: tuple[str, ...]) -> None:
    text = cuda_source(file)

    assert "#include" not in text
    for kernel in kernels:
        assert f'extern "C" __global__ void {kernel}(' in text


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=300))
def test_a_median_lies_in_its_interval(values: list[float]) -> None:
    estimate = median_estimate(values)

    assert estimate.value == statistics.median(values)
    if len(values) < 6:
        assert estimate.low is None
        assert "too few" in (estimate.reason or "")
    else:
        assert estimate.low is not None
        assert estimate.high is not None
        assert min(values) <= estimate.low <= estimate.value <= estimate.high <= max(values)


def test_no_values_have_no_median() -> None:
    with pytest.raises(ValueError, match="no median"):
        median_estimate([])


@pytest.mark.parametrize("count", [6, 9, 25, 101, 400])
def test_the_interval_of_a_median_covers_it_95_times_in_100_whatever_the_distribution(count: int) -> None:
    rng = np.random.default_rng(1)
    estimates = [median_estimate(rng.exponential(size=count).tolist()) for _ in range(1000)]
    covered = np.mean([(one.low or 0) <= np.log(2) <= (one.high or 0) for one in estimates])

    assert covered > 0.93
