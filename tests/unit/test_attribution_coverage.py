"""Time in which kernels were not recorded is nobody's, and what ran in it is estimated, never filled in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.report import attribute
from qmeter_native.attribution.student_t import t_quantile_975
from qmeter_native.attribution.traced_time import traced_time
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import ProcessInfo
from qmeter_native.model.phase import Phase
from qmeter_native.model.report import AttributionReport
from tests.factories import ATTENTION, GEMM, T0, CaptureBuilder, device

SECOND = 1_000_000_000
MS = 1_000_000
TWO_PROCESSES = tuple(ProcessInfo(index, "host", "boot", 100 + index) for index in (0, 1))


def traced(builder: CaptureBuilder, on_device: int = 0) -> list[tuple[int, int]]:
    time = traced_time(builder.build(), on_device)
    return [(start - T0, end - T0) for start, end in zip(time.start_ns.tolist(), time.end_ns.tolist(), strict=True)]


def duty_cycled(busy: list[int], **changes: object) -> CaptureBuilder:
    """Windows of 100 ns every 200, each with a GEMM of as long as ``busy`` says, with 10 W·ns/ns of power."""
    builder = CaptureBuilder(200 * len(busy), {"devices": (device(**changes),)})
    for number, length in enumerate(busy):
        builder.traced(200 * number, 200 * number + 100).kernel(200 * number, 200 * number + length)
    return builder


def test_a_process_without_windows_was_traced_all_the_time() -> None:
    assert traced(CaptureBuilder().kernel(10, 20)) == [(0, 1_000)]


def test_only_the_windows_of_a_process_count() -> None:
    builder = CaptureBuilder().kernel(300, 310).traced(-50, 100).traced(300, 400).traced(900, 1_500)
    assert traced(builder) == [(0, 100), (300, 400), (900, 1_000)]


def test_all_processes_on_a_device_must_be_recorded_at_once() -> None:
    builder = CaptureBuilder(1_000, {"processes": TWO_PROCESSES}).kernel(5, 6).kernel(5, 6, process=1)
    builder.traced(0, 400).traced(600, 1_000).traced(0, 300, process=1).traced(500, 1_000, process=1)
    assert traced(builder) == [(0, 300), (600, 1_000)]


def test_a_process_that_had_ended_does_not_untrace_the_next() -> None:
    builder = CaptureBuilder(1_000, {"processes": TWO_PROCESSES}).kernel(5, 6).kernel(700, 710, process=1)
    builder.traced(0, 400).traced(500, 1_000, process=1)
    assert traced(builder) == [(0, 400), (500, 1_000)]


def test_steps_outside_all_windows_tell_that_a_process_lived() -> None:
    builder = CaptureBuilder(1_000, {"processes": TWO_PROCESSES}).kernel(5, 6).kernel(700, 710, process=1)
    builder.traced(0, 400).traced(500, 1_000, process=1).step(0, 800, 900)
    assert traced(builder) == [(0, 400), (900, 1_000)]


def test_processes_on_other_devices_do_not_matter() -> None:
    builder = CaptureBuilder(1_000, {"processes": TWO_PROCESSES, "devices": (device(0), device(1))})
    builder.kernel(5, 6).kernel(5, 6, process=1, device=1).traced(0, 400).traced(100, 300, process=1)
    assert (traced(builder, 0), traced(builder, 1)) == ([(0, 400)], [(100, 300)])


def test_untraced_time_is_neither_busy_nor_idle() -> None:
    builder = CaptureBuilder().traced(100, 400).kernel(50, 150).kernel(390, 450)
    builder.step(0, 100, 200).step(1, 380, 500).step(2, 600, 700)
    (time,) = attribute(builder.build(), "test").balance.time
    assert (time.wall_ns, time.untraced_ns, time.busy_ns) == (1_000, 700, 60)
    assert time.idle_in_steps_ns == (100 - 50) + (20 - 10)
    assert time.idle_between_steps_ns == 300 - 60 - 60
    assert time.is_closed


def test_a_step_outside_the_windows_lost_no_marker() -> None:
    builder = CaptureBuilder().traced(0, 400).traced(600, 1_000)
    for step, start in enumerate((20, 100, 200, 450, 640, 700)):
        builder.step(step, start, start + 10, num_markers=2)
    for step, start in ((0, 30), (2, 210), (5, 720)):
        builder.marker(start, 2 * step).marker(start + 40, 2 * step + 1)
    report = attribute(builder.build(), "test")
    (lost,) = (entry for entry in report.validity if entry.code == "lost_markers")
    assert lost.message.startswith("1 engine")


def test_tokens_per_joule_count_the_tokens_of_traced_steps_only() -> None:
    builder = duty_cycled([50, 50])
    for step, start in enumerate((10, 90, 120, 210)):
        builder.step(step, start, start + 30).ride(step, 0, Phase.DECODE)
    assert [row.num_tokens for row in attribute(builder.build(), "test").phases] == [0, 2, 0]


def test_energy_of_untraced_time_is_not_spread_over_traced_kernels() -> None:
    builder = CaptureBuilder(2 * SECOND).traced(0, SECOND).kernel(0, SECOND)
    builder.tick(0, 0).tick(2 * SECOND, 800_000_000)
    report = attribute(builder.build(), "test")
    (energy,) = report.balance.energy
    assert (energy.kernels_j or 0) + (energy.static_j or 0) == pytest.approx(400)
    assert energy.unattributed_j == pytest.approx(400)
    assert "untraced" in energy.method
    assert report.balance.failures() == ()
    assert report.totals.energy_gross_j.value == pytest.approx(800)


def test_idle_energy_of_a_duty_cycled_run_is_an_estimate_of_all_of_it() -> None:
    builder = duty_cycled([50, 40, 60, 45, 55, 50]).tick(0, 0).tick(1_200, 480)
    totals = attribute(builder.build(), "test").totals
    assert totals.energy_idle_j.value == pytest.approx(100 * 600e-9)
    assert totals.energy_idle_j.method.startswith("estimated")
    assert totals.energy_active_j.value == pytest.approx(480e-6 - 100 * 600e-9)


def test_idle_energy_is_missing_where_too_little_was_traced() -> None:
    totals = attribute(duty_cycled([50, 40]).tick(0, 0).tick(400, 480).build(), "test").totals
    assert totals.energy_idle_j.value is None
    assert totals.energy_active_j.value is None
    assert totals.energy_gross_j.value is not None


def coverage_of(builder: CaptureBuilder) -> AttributionReport:
    return attribute(builder.build(), "test")


def test_what_was_traced_completely_is_exact() -> None:
    (coverage,) = coverage_of(CaptureBuilder().kernel(0, 600).kernel(700, 800, ATTENTION)).coverage
    assert coverage.is_complete
    assert (coverage.busy_s.low, coverage.busy_s.value, coverage.busy_s.high) == (700e-9, 700e-9, 700e-9)
    assert {family.op_family: family.time_s.value for family in coverage.families} == {
        "gemm": pytest.approx(600e-9),
        "attention": pytest.approx(100e-9),
    }


def test_busy_time_is_the_traced_share_of_the_whole_window_with_an_interval() -> None:
    busy = [50, 40, 60, 45, 55, 50]
    (coverage,) = coverage_of(duty_cycled(busy)).coverage
    assert (coverage.traced_ns, coverage.untraced_ns, coverage.num_windows) == (600, 600, 6)
    half = 2.5706 * 1_200e-9 * np.sqrt(0.5 / 6 * np.var(busy, ddof=1)) / 100
    assert coverage.busy_s.value == pytest.approx(600e-9)
    assert coverage.busy_s.low == pytest.approx(600e-9 - half, rel=1e-4)
    assert coverage.busy_s.high == pytest.approx(600e-9 + half, rel=1e-4)
    assert coverage.busy_s.method.startswith("estimated")
    assert [family.op_family for family in coverage.families] == ["gemm"]


def test_an_interval_never_denies_what_was_seen() -> None:
    (coverage,) = coverage_of(duty_cycled([100, 0, 0, 0, 0])).coverage
    assert coverage.busy_s.low == pytest.approx(100e-9)
    (coverage,) = coverage_of(duty_cycled([0, 100, 100, 100, 100])).coverage
    assert coverage.busy_s.high == pytest.approx(900e-9)


def test_few_windows_have_no_estimate() -> None:
    (coverage,) = coverage_of(duty_cycled([50, 40, 60, 45])).coverage
    assert coverage.busy_s.value is None
    assert "4 traced windows" in (coverage.busy_s.reason or "")


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits, trials = 0, 200
    for _ in range(trials):
        busy = rng.integers(20, 80, 40)
        is_on = np.zeros(40, bool)
        is_on[rng.choice(40, 12, replace=False)] = True
        builder = CaptureBuilder(40 * 100)
        for number in np.flatnonzero(is_on).tolist():
            builder.traced(100 * number, 100 * number + 99).kernel(100 * number, 100 * number + int(busy[number]))
        (coverage,) = attribute(builder.build(), "test").coverage
        truth = busy.sum() * 1e-9 * 100 / 99
        hits += (coverage.busy_s.low or 0) <= truth <= (coverage.busy_s.high or 0)
    assert hits / trials > 0.88


def served_in_windows(lag: int, *, busy: float, num_windows: int = 20, seed: int = 7) -> CaptureBuilder:
    """Kernels of 1 ms, launched ``lag`` before they start, of which windows of 100 ms every 400 record the launched."""
    rng = np.random.default_rng(seed)
    builder = CaptureBuilder(num_windows * 400 * MS)
    is_on = rng.random(num_windows * 400 - 1) < busy
    for start in (np.flatnonzero(is_on) * MS).tolist():
        if (start - lag) % (400 * MS) < 100 * MS and start >= lag:
            builder.kernel(start, start + MS)
    for number in range(num_windows):
        builder.traced(400 * MS * number, 400 * MS * number + 100 * MS)
    return builder


def estimated_share(builder: CaptureBuilder) -> float:
    capture = builder.build()
    (coverage,) = attribute(capture, "test").coverage
    assert coverage.busy_s.value is not None
    return coverage.busy_s.value * SECOND / builder.length_ns


def test_a_busy_server_with_a_queue_is_seen_as_busy_as_it_is() -> None:
    assert estimated_share(served_in_windows(8 * MS, busy=1)) == pytest.approx(1, abs=0.01)
    assert estimated_share(served_in_windows(8 * MS, busy=0.9)) == pytest.approx(0.9, abs=0.02)  # sampled


@pytest.mark.parametrize("lag", [0, 8 * MS])
def test_a_server_with_little_to_do_is_estimated_from_what_was_recorded(lag: int) -> None:
    builder = served_in_windows(lag, busy=0.02)
    recorded = len(builder.build().kernels) * MS / (20 * 100 * MS)
    assert estimated_share(builder) == pytest.approx(recorded, rel=0.01)


def test_a_window_moves_by_half_its_length_at_most() -> None:
    builder = CaptureBuilder().traced(0, 100).traced(300, 400).traced(600, 620).kernel(380, 385)
    assert traced(builder) == [(50, 150), (350, 450), (610, 630)]


def test_windows_stay_where_no_queue_was_seen() -> None:
    builder = CaptureBuilder().traced(0, 100).traced(300, 400)
    assert traced(builder.kernel(40, 50)) == [(0, 100), (300, 400)]  # too few to tell
    assert traced(builder.traced(600, 700).kernel(600, 610)) == [(0, 100), (300, 400), (600, 700)]


def test_windows_without_kernels_stay() -> None:
    assert traced(CaptureBuilder().traced(0, 1).traced(5, 6).traced(8, 9)) == [(0, 1), (5, 6), (8, 9)]


def test_each_device_has_a_queue_of_its_own() -> None:
    builder = CaptureBuilder(1_000, {"devices": (device(0), device(1))})
    for start in (0, 300, 600):
        builder.traced(start, start + 100).kernel(start + 10, start + 50).kernel(start, start + 50, device=1)
    assert traced(builder, 0) == [(10, 110), (310, 410), (610, 710)]
    assert traced(builder, 1) == [(0, 100), (300, 400), (600, 700)]


@pytest.mark.parametrize(("degrees", "exact"), [(4, 2.776445), (5, 2.570582), (9, 2.262157), (30, 2.042272)])
def test_student_s_quantile_is_that_of_the_tables(degrees: int, exact: float) -> None:
    assert t_quantile_975(degrees) == pytest.approx(exact, rel=4e-4)


spans = st.tuples(st.integers(-50, 1_050), st.integers(0, 300))


@settings(max_examples=100, deadline=None)
@given(
    kernels=st.lists(st.tuples(spans, st.integers(0, 2), st.sampled_from([GEMM, ATTENTION])), max_size=15),
    windows=st.lists(spans, min_size=1, max_size=8),
    steps=st.lists(spans, max_size=5),
    ticks=st.lists(st.integers(-100, 1_100), min_size=2, max_size=8, unique=True),
)
def test_time_and_energy_are_conserved_whatever_was_traced(
    kernels: list[tuple[tuple[int, int], int, str]],
    windows: list[tuple[int, int]],
    steps: list[tuple[int, int]],
    ticks: list[int],
) -> None:
    builder = CaptureBuilder(1_000)
    for (start, length), stream, name in kernels:
        builder.kernel(start, start + length, name, stream=stream)
    for start, length in windows:
        builder.traced(start, start + length)
    for step, (start, length) in enumerate(steps):
        builder.step(step, start, start + length).ride(step, step % 2)
    for number, time in enumerate(sorted(ticks)):
        builder.tick(time, number * 7)
    capture: Capture = builder.build()
    report = attribute(capture, "test")
    assert report.balance.failures() == ()
    (time,) = report.balance.time
    is_traced = np.zeros(1_000, bool)
    for start, end in traced(builder):
        is_traced[start:end] = True
    if not kernels and not steps:
        return
    is_busy = np.zeros(1_000, bool)
    for (start, length), _, _ in kernels:
        is_busy[max(start, 0) : max(start + length, 0)] = True
    assert time.untraced_ns == int((~is_traced).sum())
    assert time.busy_ns == time.kernels_ns == int((is_busy & is_traced).sum())
    assert min(time.idle_in_steps_ns, time.idle_between_steps_ns, time.unassigned_ns, time.assigned_ns) >= 0
    assert time.overlapped_ns <= time.busy_ns
    families = sum(round((family.time_s.value or 0) * 1e9) for family in report.coverage[0].families)
    if time.untraced_ns == 0:
        assert families == time.busy_ns
