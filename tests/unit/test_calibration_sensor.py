from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qmeter_native.calibration.sensor import sensor_model
from qmeter_native.calibration.sensor_load import SensorWave, sensor_loads
from qmeter_native.model.capture import Capture
from qmeter_native.model.tables import RangeTable
from tests.factories import T0, CaptureBuilder, device

S = 1_000_000_000


@dataclass
class SensorUnderLoad:
    """Square waves on a GPU of 120 W and 300 W more when busy, seen by a sensor whose nature is known."""

    tick_s: float = 0.1
    window_s: float = 0.025
    lag_s: float = 0.02
    sample_s: float = 0.02
    noise_w: float = 3.0
    counter_sees_s: float = 0.1
    counter_constant_s: float | None = None
    edge_slack_s: float = 0.002
    idle_w: float = 120.0
    load_w: float = 300.0
    seed: int = 0
    bounds: list[tuple[float, float]] = field(default_factory=list)

    def capture(self, waves: list[SensorWave]) -> Capture:
        rng = np.random.default_rng(self.seed)
        builder = CaptureBuilder()
        now = 0.25
        for wave in waves:
            first = (np.floor(now / wave.period_s) + 1 + wave.phase) * wave.period_s
            for period in range(wave.num_periods):
                start = first + period * wave.period_s
                self.bounds.append((start, start + wave.duty * wave.period_s))
            end = first + wave.length_s
            builder.add(RangeTable, start_ns=T0 + int(now * S), end_ns=T0 + int(end * S), name=wave.range_name)
            now = end + 0.001
        for start, end in self.bounds:
            builder.kernel(int(start * S), int(end * S), "qmeter_fma")
        self._sensor(builder, now, rng)
        reading = {"total_energy": {"ok": True, "reason": None, "call_cost_ns": 2_206_289}}
        builder.length_ns = int(now * S)
        builder.changes["devices"] = (device(properties={"readings": reading}),)
        return builder.build()

    def _sensor(self, builder: CaptureBuilder, length_s: float, rng: np.random.Generator) -> None:
        ticks = np.arange(0.037, length_s, self.tick_s)
        energy = np.cumsum(self._counter_w(ticks) * self.tick_s)
        for tick, joules in zip(ticks, energy, strict=True):
            late = rng.uniform(0, self.edge_slack_s)
            builder.tick(int((tick + late) * S), int(joules * 1e6), half_width=int(self.edge_slack_s / 2 * S))
        stamps = np.arange(0.011, length_s, self.sample_s)
        power = self.mean_w(stamps - self.lag_s, self.window_s) + rng.normal(0, self.noise_w, len(stamps))
        for stamp, watts in zip(stamps, power, strict=True):
            builder.power(int(stamp * S), int(max(watts, 0) * 1e3))

    def _counter_w(self, ticks: NDArray[Any]) -> NDArray[Any]:
        """Mean power by tick: of the time before it, or of five looks at a low-pass, computed in steps of 0.1 ms."""
        if self.counter_constant_s is None:
            return self.mean_w(ticks, self.counter_sees_s)
        step_s = 1e-4
        times = np.arange(0, ticks[-1] + step_s, step_s)
        kept, value, filtered = np.exp(-step_s / self.counter_constant_s), self.idle_w, []
        for power_w in self.mean_w(times, step_s).tolist():
            value = kept * value + (1 - kept) * power_w
            filtered.append(value)
        looks = ticks[:, None] - 0.02 * np.arange(5)
        mean_w: NDArray[Any] = np.interp(looks, times, filtered).mean(axis=1)
        return mean_w

    def mean_w(self, end: NDArray[Any], length: float) -> NDArray[Any]:
        edges = np.array(self.bounds).ravel()
        spans = np.diff(np.array(self.bounds), axis=1).ravel()
        busy = np.stack([np.cumsum(spans) - spans, np.cumsum(spans)], axis=1).ravel()
        share = (np.interp(end, edges, busy) - np.interp(end - length, edges, busy)) / length
        power_w: NDArray[Any] = self.idle_w + self.load_w * share
        return power_w


def test_period_window_and_lag_of_a_sensor_are_found_within_their_intervals() -> None:
    model = sensor_model(SensorUnderLoad().capture(sensor_loads(is_quick=False)), 0)

    for estimate, truth in ((model.window_s, 0.025), (model.lag_s, 0.02)):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= truth <= estimate.high
        assert estimate.high - estimate.low < 0.008
    assert model.tick_s.value == pytest.approx(0.1, rel=1e-3)
    assert model.power_sample_s.value == pytest.approx(0.02)
    assert model.counter_call_s.value == pytest.approx(0.002206, rel=1e-3)


@pytest.mark.parametrize(("window_s", "lag_s"), [(0.1, 0.0), (0.01, 0.04), (0.05, 0.02)])
def test_sensors_with_other_windows_are_told_apart(window_s: float, lag_s: float) -> None:
    model = sensor_model(SensorUnderLoad(window_s=window_s, lag_s=lag_s).capture(sensor_loads(is_quick=True)), 0)

    assert model.window_s.value == pytest.approx(window_s, abs=0.004)
    assert model.lag_s.value == pytest.approx(lag_s, abs=0.004)


def test_a_counter_that_integrates_everything_is_independent_of_the_pulses_phase() -> None:
    model = sensor_model(SensorUnderLoad().capture(sensor_loads(is_quick=False)), 0)

    assert model.phase_error.value is not None
    assert model.phase_error.value < 0.01
    assert model.counter_time_constant_s.value is None
    assert "integrates" in str(model.counter_time_constant_s.reason)
    assert model.window_error < 0.01


def test_a_counter_that_looks_a_quarter_of_the_time_is_found_out() -> None:
    model = sensor_model(SensorUnderLoad(counter_sees_s=0.025).capture(sensor_loads(is_quick=False)), 0)

    assert model.phase_error.value is not None
    assert model.phase_error.value > 0.1


def test_looks_and_low_pass_of_a_counter_are_found_and_explain_the_pulses() -> None:
    model = sensor_model(SensorUnderLoad(counter_constant_s=0.015).capture(sensor_loads(is_quick=False)), 0)

    assert model.counter_look_s.value == pytest.approx(0.02, rel=1e-3)
    assert model.counter_time_constant_s.value == pytest.approx(0.015, rel=0.05)
    assert model.counter_lag_s.value == pytest.approx(0, abs=0.0015)
    assert model.phase_error.value is not None
    assert model.phase_error_seen.value is not None
    assert model.phase_error_seen.value < min(0.01, model.phase_error.value)


def test_without_sweeps_the_counters_looks_stay_unknown() -> None:
    waves = [wave for wave in sensor_loads(is_quick=True) if not wave.is_sweep]
    model = sensor_model(SensorUnderLoad(counter_constant_s=0.015).capture(waves), 0)

    assert model.counter_time_constant_s.value is None
    assert model.counter_time_constant_s.reason


def test_edges_that_were_missed_do_not_lengthen_the_tick() -> None:
    capture = SensorUnderLoad().capture(sensor_loads(is_quick=True))
    kept = np.random.default_rng(1).random(len(capture.energy.device)) > 0.3
    model = sensor_model(replace(capture, energy=capture.energy.take(np.flatnonzero(kept))), 0)

    assert model.tick_s.value == pytest.approx(0.1, rel=1e-3)


def test_what_a_capture_does_not_tell_is_missing_with_the_reason() -> None:
    model = sensor_model(CaptureBuilder().build(), 0)

    for estimate in (model.tick_s, model.power_sample_s, model.window_s, model.lag_s, model.phase_error):
        assert estimate.value is None
        assert estimate.reason


def test_a_wave_is_read_back_from_the_name_of_its_range() -> None:
    for wave in sensor_loads(is_quick=True):
        assert SensorWave.of_range(wave.range_name) == wave
    assert SensorWave.of_range("load:{}") is None


def test_pulses_meet_the_counters_ticks_at_eight_evenly_spaced_phases() -> None:
    pulses = [wave for wave in sensor_loads(is_quick=False) if wave.is_pulses]

    assert sorted(wave.phase for wave in pulses) == [step / 8 for step in range(8)]
    assert {wave.period_s for wave in pulses} == {0.1}
