"""What a PM session costs, computed from a made-up capture, and rates from made-up replays."""

from __future__ import annotations

import numpy as np
import pytest

from qmeter_native.model.capture import Capture
from qmeter_native.model.tables import RangeTable
from tests.factories import T0, CaptureBuilder
from tools.bench_pm_perturbation import alignment_metrics, outside_metrics
from tools.pm_power import STATES, StateWindow, power_metrics

WINDOW_NS = 4_000_000_000
EXTRA_W = dict(zip(STATES, (0.0, 20.0, 40.0, 30.0, 0.0, 60.0), strict=True))
DRIFT_W_PER_S = 0.1
DECAY_S = 0.5


def capture_of_states(cycles: int = 2) -> Capture:
    """Windows of every state, idle at 130 W and loaded at 400 W, drifting; a session's power decays when it ends."""
    builder, start, power = CaptureBuilder(), 0, []
    for cycle in range(cycles):
        for state in STATES:
            for load in ("load", "idle") if state == "stopped" else ("idle", "load"):
                time_s = (start + np.arange(0, WINDOW_NS, 20_000_000)) / 1e9
                watts = (130.0 if load == "idle" else 400.0) + EXTRA_W[state] + DRIFT_W_PER_S * time_s
                if state == "disabled" and load == "idle":
                    watts += EXTRA_W["stopped"] * (time_s - time_s[0] < DECAY_S)
                power.append(watts)
                name = StateWindow.range_name(state, load, cycle)
                builder.add(RangeTable, start_ns=T0 + start, end_ns=T0 + start + WINDOW_NS, name=name)
                start += WINDOW_NS
    watts = np.concatenate(power)
    energy_uj = np.concatenate([[0.0], np.cumsum(watts * 20_000)])
    for tick in range(0, len(energy_uj), 5):
        builder.tick(tick * 20_000_000, round(energy_uj[tick]))
    for number, reading in enumerate(watts):
        builder.power(number * 20_000_000, round(reading * 1000))
    builder.length_ns = start
    return builder.build()


def test_watts_of_states_are_above_the_line_through_windows_without_a_session() -> None:
    metrics = power_metrics(capture_of_states(), 0)
    for state in ("enabled", "started_50us", "stopped"):
        for load in ("idle", "load"):
            metric = metrics[f"{load}_{state}_extra_w"]
            assert metric.value == pytest.approx(EXTRA_W[state], abs=0.5)
            assert metric.n == 2
    assert metrics["idle_started_10us_extra_w"].value == pytest.approx(EXTRA_W["started_10us"], abs=1.5)
    assert metrics["idle_none_w"].value == pytest.approx(130 + 0.1 * 26, abs=1.0)


def test_the_decay_lasts_until_nine_tenths_of_the_power_are_gone() -> None:
    decay = power_metrics(capture_of_states(), 0)["idle_decay_s"]
    assert decay.value == pytest.approx(DECAY_S, abs=0.06)


def test_the_cost_outside_a_phase_compares_rates_in_pairs() -> None:
    metric = outside_metrics({"with": [99.0, 198.0], "without": [100.0, 200.0]})["phase_cost_outside"]
    assert metric.value == pytest.approx(0.01)
    assert metric.n == 2


def test_an_alignment_without_samples_tells_what_was_lost_and_no_lag() -> None:
    stats = {"samples": 3, "overflows": 1, "decode_failures": 1, "evaluate_failures": 0, "lost_samples": 9}
    metrics = alignment_metrics(50, capture_of_states(1), stats)
    assert "stamp_lag_50us_s" not in metrics
    assert metrics["failures_50us"].value == 2
    assert metrics["lost_samples_50us"].value == 9
