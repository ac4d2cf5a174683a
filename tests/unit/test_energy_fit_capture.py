"""From a made-up GPU's capture to joules of its kernels, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.attribution.report import attribute
from qmeter_native.model.device_profile import DeviceProfile
from tests.synthetic_run import SENSOR, synthetic_run


@pytest.mark.parametrize("watts", [1.0, 2.8], ids=["below the cap", "at the cap"])
@pytest.mark.parametrize("has_counters", [True, False], ids=["counters", "time"])
def test_kernels_true_joules_lie_in_their_intervals(watts: float, has_counters: bool) -> None:
    hits, errors = [], []
    for seed in range(8):
        run = synthetic_run(seed, watts=watts, has_counters=has_counters, num_blocks=20)
        profile = DeviceProfile("GPU-0", "NVIDIA H200", "", SENSOR, (), run.model)
        rows = {row.name: row.dynamic_j for row in attribute(run.capture, "made up", profiles={0: profile}).kernels}
        for name, truth in zip(run.names, run.class_j, strict=True):
            found = rows[name]
            assert None not in (found.value, found.low, found.high)
            hits.append(found.low <= truth <= found.high)
            errors.append(abs(found.value / truth - 1))
    assert np.mean(hits) >= 0.85  # 64 figures of 8 runs, in each of which they are not independent
    assert np.median(errors) < 0.04


def test_a_capped_run_says_so_and_its_clocks_fall() -> None:
    run = synthetic_run(0, watts=2.8)
    clocks = run.capture.clocks
    assert clocks.sm_mhz.min() < 1900
    assert np.all((clocks.throttle_reasons != 0) == (clocks.sm_mhz < 1980))
    assert run.capture.throttles.power_ns[-1] > 0
