"""The whole report: it balances for any capture, and says what hand-made ones mean."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.report import attribute
from qmeter_native.model.manifest import ProcessInfo
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.phase import Phase
from tests.factories import ATTENTION, GEMM, MARKER, T0, CaptureBuilder, device, synthetic_capture

TWO_PROCESSES = tuple(ProcessInfo(index, "host", "boot", 100 + index) for index in (0, 1))


def one_step() -> CaptureBuilder:
    """A step on the device from 100 to 200 with a prefill of 3 tokens and a decode; 1000 ns measured."""
    builder = CaptureBuilder().step(0, 80, 90, num_markers=2).marker(100, 0).marker(199, 1)
    builder.ride(0, 0, Phase.PREFILL, num_scheduled=3).ride(0, 1)
    return builder.kernel(110, 150, GEMM).kernel(160, 180, GEMM)


def test_time_is_busy_idle_in_steps_or_idle_between_them() -> None:
    (time,) = attribute(one_step().kernel(500, 600).build(), "test").balance.time
    assert (time.wall_ns, time.busy_ns) == (1_000, 162)
    assert time.idle_in_steps_ns == 100 - 62
    assert time.idle_between_steps_ns == 1_000 - 162 - 38
    assert (time.assigned_ns, time.unassigned_ns) == (60, 102)
    assert time.unassigned_share == pytest.approx(102 / 162)


def test_a_kernel_is_counted_with_its_phases() -> None:
    report = attribute(one_step().kernel(500, 560, GEMM).build(), "test")
    gemm = report.kernels[0]
    assert (gemm.name, gemm.op_family, gemm.calls, gemm.time_s) == (GEMM, OpFamily.GEMM, 3, 120e-9)
    assert gemm.phase_shares == pytest.approx({"prefill": 0.375, "decode": 0.125, "none": 0.5})
    assert gemm.time_share == pytest.approx(120 / 122)
    marker = next(row for row in report.kernels if row.name == MARKER)
    assert marker.op_family is OpFamily.METER
    assert report.totals.num_kernels == 3


def test_phases_and_requests_share_the_same_time() -> None:
    report = attribute(one_step().build(), "test")
    assert [(row.phase, row.num_tokens) for row in report.phases] == [("prefill", 3), ("decode", 1), ("none", 0)]
    assert [row.time_s for row in report.phases] == pytest.approx([45e-9, 15e-9, 2e-9])
    assert [row.share_prefill_s for row in report.requests] == pytest.approx([45e-9, 0])
    assert [row.share_decode_s for row in report.requests] == pytest.approx([0, 15e-9])


def test_requests_without_a_client_are_still_listed() -> None:
    (first, second) = attribute(one_step().request(1, 50, 210, 220, tokens=3).build(), "test").requests
    assert (first.name, first.elapsed, first.elapsed_reason) == (None, None, "no client recorded it")
    assert (first.num_prompt_tokens, first.num_output_tokens, first.is_finished) == (None, None, None)
    assert second.elapsed is not None
    assert second.elapsed.end_to_end_ns == 170
    assert second.tpot_s == pytest.approx(5e-9)


def test_only_the_inside_of_the_measured_window_counts() -> None:
    builder = CaptureBuilder(1_000, {"measure_start_ns": T0 + 100, "measure_end_ns": T0 + 200})
    builder.kernel(50, 120).kernel(190, 300).kernel(400, 500)
    report = attribute(builder.build(), "test")
    assert report.balance.time[0].busy_ns == 30
    assert report.kernels[0].calls == 1
    assert report.totals.wall_s == 100e-9


def test_devices_are_kept_apart() -> None:
    builder = CaptureBuilder(100, {"devices": (device(0), device(3))})
    builder.kernel(0, 60, device=0).kernel(30, 60, device=3)
    times = {time.device: time for time in attribute(builder.build(), "test").balance.time}
    assert (times[0].busy_ns, times[3].busy_ns) == (60, 30)
    assert times[0].overlapped_ns == 0


def test_each_process_says_what_it_ran_where() -> None:
    builder = CaptureBuilder(100, {"devices": (device(0), device(1)), "processes": TWO_PROCESSES})
    builder.kernel(0, 5).kernel(5, 9).kernel(0, 5, process=1, device=1)
    rows = attribute(builder.build(), "test").processes
    assert [(row.pid, row.devices, row.num_kernels) for row in rows] == [(100, (0,), 2), (101, (1,), 1)]


def test_kernels_of_an_unlisted_device_are_pointed_out() -> None:
    report = attribute(CaptureBuilder().kernel(0, 5, device=4).build(), "test")
    assert report.balance.time[0].busy_ns == 0
    assert [entry.code for entry in report.validity] == ["unlisted_device"]


def test_two_processes_on_one_device_share_its_time() -> None:
    builder = CaptureBuilder(100, {"processes": TWO_PROCESSES})
    builder.step(0, 0, 50, process=0).step(0, 0, 60, process=1)
    builder.ride(0, 0, process=0).ride(0, 0, process=1)
    builder.kernel(0, 40, process=0).kernel(20, 60, process=1)
    report = attribute(builder.request(0, 0, 70, 70).build(), "test")
    (time,) = report.balance.time
    assert (time.busy_ns, time.overlapped_ns, time.assigned_ns, time.residual_ns) == (60, 20, 60, 0)
    assert report.requests[0].share_decode_s == pytest.approx(60e-9)
    assert report.phases[1].num_tokens == 1


def test_totals_count_requests_that_were_sent_inside_the_measured_window() -> None:
    builder = CaptureBuilder(1_000, {"measure_start_ns": T0 + 100, "measure_end_ns": T0 + 500})
    builder.request(0, 50, 120, 150, tokens=7).request(1, 100, 160, 400, tokens=3).request(2, 500, 600, 700, tokens=9)
    report = attribute(builder.build(), "test")
    assert (report.totals.num_requests, report.totals.num_output_tokens) == (1, 3)
    assert (report.totals.e2e_s.count, report.totals.e2e_s.mean) == (1, pytest.approx(300e-9))
    assert [row.request for row in report.requests] == [1]


def test_requests_before_the_measured_window_are_not_of_the_run_unless_they_ran_on_into_it() -> None:
    builder = CaptureBuilder(1_000, {"measure_start_ns": T0 + 100, "measure_end_ns": T0 + 500})
    builder.step(0, 60, 90).ride(0, 0, Phase.PREFILL).ride(0, 1, Phase.PREFILL).kernel(60, 90)
    builder.step(1, 95, 130).ride(1, 1).kernel(95, 130).step(2, 200, 300).ride(2, 2, Phase.PREFILL).kernel(200, 300)
    builder.request(0, 50, 91, 91, name="warmup-0").request(1, 50, 91, 140).request(2, 150, 310, 310)
    report = attribute(builder.build(), "test")
    assert [row.request for row in report.requests] == [1, 2]
    assert report.balance.requests.num_requests == 2
    assert sum(row.share_prefill_s + row.share_decode_s for row in report.requests) == pytest.approx(130e-9)


def test_lost_markers_are_pointed_out() -> None:
    builder = CaptureBuilder().step(0, 80, 90, num_markers=2).marker(100, 0).kernel(110, 120)
    assert [entry.code for entry in attribute(builder.build(), "test").validity] == ["lost_markers"]


def test_requests_whose_last_steps_were_not_recorded_are_pointed_out() -> None:
    def codes(tokens: int, num_draft: int = 0) -> list[str]:
        builder = CaptureBuilder().request(0, 10, 40, 90, tokens=tokens).request(1, 10, 40, 90, tokens=9)
        builder.step(0, 20, 30).ride(0, 0, Phase.PREFILL).step(1, 40, 50).ride(1, 0, num_draft=num_draft)
        builder.kernel(20, 30).kernel(40, 50)
        return [entry.code for entry in attribute(builder.build(), "test").validity]

    assert codes(tokens=2) == []
    assert codes(tokens=3) == ["missing_steps"]
    assert codes(tokens=3, num_draft=1) == []


def test_an_empty_capture_has_an_empty_report() -> None:
    report = attribute(CaptureBuilder(1_000, {"devices": ()}).build(), "empty")
    assert report.kernels == ()
    assert report.requests == ()
    assert report.balance.failures() == ()
    assert report.balance.requests.reason == "no client recorded a request"
    assert report.totals.energy_gross_j.reason == "the capture has no device"


def test_a_window_without_length_divides_nothing_by_zero() -> None:
    builder = CaptureBuilder(1_000, {"measure_start_ns": T0, "measure_end_ns": T0}).kernel(0, 5).tick(-5, 0).tick(5, 9)
    report = attribute(builder.build(), "nothing")
    assert report.balance.failures() == ()
    assert report.totals.average_power_w.value is None


def test_a_capture_that_looks_like_serving_balances() -> None:
    capture = synthetic_capture(40_000)
    report = attribute(capture, "synthetic")
    assert report.balance.failures() == ()
    (time,), (energy,) = report.balance.time, report.balance.energy
    assert time.unassigned_share < 0.01
    assert energy.measured_j is not None
    finished = [row for row in report.requests if row.elapsed is not None]
    assert len(finished) == report.totals.num_finished == report.balance.requests.num_requests
    shared_s = sum(row.share_prefill_s + row.share_decode_s for row in report.requests)
    assert shared_s == pytest.approx(time.assigned_ns / 1e9)
    assert sum(row.energy_j.value or 0 for row in report.phases) == pytest.approx(
        (energy.kernels_j or 0) + (energy.meter_j or 0)
    )
    assert report.totals.ttft_s.count == report.totals.num_finished


intervals = st.tuples(st.integers(-50, 1_050), st.integers(0, 300))
a_kernel = st.tuples(
    intervals, st.integers(0, 3), st.integers(0, 1), st.integers(0, 1), st.sampled_from([GEMM, ATTENTION])
)


@settings(max_examples=100, deadline=None)
@given(
    kernels=st.lists(a_kernel, max_size=15),
    steps=st.lists(st.tuples(st.integers(-50, 1_050), st.integers(0, 300), st.integers(0, 1)), max_size=5),
    rides=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 3)), max_size=12),
)
def test_time_is_conserved_for_any_kernels_on_any_streams(
    kernels: list[tuple[tuple[int, int], int, int, int, str]],
    steps: list[tuple[int, int, int]],
    rides: set[tuple[int, int, int]],
) -> None:
    builder = CaptureBuilder(1_000, {"devices": (device(0), device(1)), "processes": TWO_PROCESSES})
    for (start, length), stream, on_device, process, name in kernels:
        builder.kernel(start, start + length, name, stream=stream, device=on_device, process=process)
    for step, (start, length, process) in enumerate(sorted(steps, key=lambda entry: entry[2])):
        builder.step(step, start, start + length, process=process, device=process)
    for step, process, request in rides:
        builder.ride(step, request, Phase(request % 2), process=process, num_scheduled=request + 1)
    report = attribute(builder.build(), "test")
    assert report.balance.failures() == ()
    for time in report.balance.time:
        covered = {
            second
            for (start, length), _, on_device, _, _ in kernels
            for second in range(max(start, 0), min(start + length, 1_000))
            if on_device == time.device
        }
        assert time.busy_ns == time.kernels_ns == len(covered)
        assert min(time.idle_in_steps_ns, time.idle_between_steps_ns, time.unassigned_ns, time.assigned_ns) >= 0
        assert time.busy_ns + time.idle_in_steps_ns + time.idle_between_steps_ns == time.wall_ns
