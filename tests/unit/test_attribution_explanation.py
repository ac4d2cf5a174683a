"""A request's end-to-end time, explained to the nanosecond."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.report import attribute
from qmeter_native.attribution.request_names import find_request
from qmeter_native.errors import UsageError
from qmeter_native.model.explanation import RequestExplanation
from qmeter_native.model.manifest import ProcessInfo, Validity
from qmeter_native.model.phase import Phase
from tests.factories import ATTENTION, GEMM, SAMPLING, CaptureBuilder, device, synthetic_capture

TWO_PROCESSES = tuple(ProcessInfo(index, "host", "boot", 100 + index) for index in (0, 1))


def explain(builder: CaptureBuilder, *asked: int) -> tuple[RequestExplanation, ...]:
    return attribute(builder.build(), "test", asked).explanations


def told(explanation: RequestExplanation) -> dict[tuple[str, str | None, str | None], int]:
    parts = explanation.parts
    return {(part.kind, part.phase, part.op_family and part.op_family.value): part.time_ns for part in parts}


def served() -> CaptureBuilder:
    """One request, sent at 20: prefill from 100 to 200, two decodes from 220 and 260, answered at 310."""
    builder = CaptureBuilder().request(0, 20, 205, 310, tokens=3)
    builder.step(0, 100, 200).ride(0, 0, Phase.PREFILL, num_scheduled=4)
    builder.step(1, 220, 250).ride(1, 0).step(2, 260, 300).ride(2, 0)
    builder.kernel(110, 150, GEMM).kernel(160, 180, ATTENTION).kernel(185, 195, SAMPLING)
    builder.kernel(220, 240, GEMM).kernel(265, 275, ATTENTION)
    return builder


def test_a_request_is_explained_part_by_part() -> None:
    (explanation,) = explain(served(), 0)
    assert list(told(explanation).items()) == [
        (("queue", None, None), 80),
        (("kernels", "prefill", "gemm"), 40),
        (("kernels", "prefill", "attention"), 20),
        (("kernels", "prefill", "sampling"), 10),
        (("idle_in_steps", "prefill", None), 30),
        (("kernels", "decode", "gemm"), 20),
        (("kernels", "decode", "attention"), 10),
        (("idle_in_steps", "decode", None), 40),
        (("gaps", None, None), 30),
        (("host", None, None), 10),
    ]
    assert (explanation.end_to_end_ns, explanation.residual_ns, explanation.num_steps) == (290, 0, 3)
    assert (explanation.reason, explanation.name, explanation.is_client) == ("asked for", "r0", True)


def test_overlapping_kernels_share_and_kernels_across_an_edge_are_cut() -> None:
    builder = served().kernel(90, 130, SAMPLING, stream=9).kernel(296, 400, SAMPLING)
    parts = told(explain(builder, 0)[0])
    assert parts["kernels", "prefill", "gemm"] == 30
    assert parts["kernels", "prefill", "sampling"] == 10 + 10 + 10
    assert parts["kernels", "decode", "sampling"] == 4


def test_kernels_of_other_devices_are_not_its_kernels() -> None:
    builder = served().kernel(100, 200, SAMPLING, device=1)
    builder.changes = {"devices": (device(0), device(1))}
    assert told(explain(builder, 0)[0])["kernels", "prefill", "sampling"] == 10


def test_ridden_time_outside_traced_windows_is_untraced() -> None:
    builder = served().traced(0, 170).traced(230, 265)
    parts = told(explain(builder, 0)[0])
    assert parts["untraced", "prefill", None] == 30
    assert parts["untraced", "decode", None] == 10 + 35
    assert parts["kernels", "prefill", "attention"] == 10
    assert ("kernels", "decode", "attention") not in parts
    assert sum(parts.values()) == 290


def test_a_gap_beside_a_step_without_its_markers_is_untraced() -> None:
    builder = CaptureBuilder().request(0, 0, 60, 900).traced(0, 300).traced(700, 1_000)
    for step, start in enumerate((100, 200, 400, 800)):
        builder.step(step, start, start + 10, num_markers=2).ride(step, 0, Phase.PREFILL if step == 0 else Phase.DECODE)
    for step, start in ((0, 110), (1, 210), (3, 810)):
        builder.marker(start, 2 * step).marker(start + 49, 2 * step + 1)
    parts = told(explain(builder, 0)[0])
    assert parts["untraced", "decode", None] == 700 - 300
    assert parts["gaps", None, None] == (210 - 160) + (300 - 260) + (810 - 700)


def test_the_gap_after_a_preemption_is_preempted() -> None:
    builder = CaptureBuilder().request(0, 0, 60, 900, tokens=4)
    for step, (start, phase) in enumerate(((10, Phase.PREFILL), (100, Phase.DECODE), (700, Phase.PREFILL))):
        builder.step(step, start, start + 50).ride(step, 0, phase)
    builder.step(3, 760, 800).ride(3, 0).preemption(0, 120).preemption(1, 755)
    parts = told(explain(builder, 0)[0])
    assert parts["preempted", None, None] == 700 - 150
    assert parts["gaps", None, None] == 40 + 10


def test_a_device_that_lags_behind_the_scheduler_does_not_confuse_preemption() -> None:
    builder = CaptureBuilder().request(0, 0, 60, 900)
    builder.step(0, 10, 20).ride(0, 0, Phase.PREFILL).step(1, 40, 50).ride(1, 0).step(2, 500, 510)
    builder.ride(2, 0, Phase.PREFILL).preemption(0, 39)
    assert told(explain(builder, 0)[0])["preempted", None, None] == 450


def test_the_busiest_rank_is_told() -> None:
    builder = served()
    builder.changes = {"processes": TWO_PROCESSES, "devices": (device(0), device(1))}
    for step, start, end in ((0, 100, 200), (1, 220, 250)):
        builder.step(step, start, end, process=1, device=1).ride(step, 0, Phase.PREFILL, process=1)
    builder.kernel(100, 200, SAMPLING, device=1, process=1)
    (explanation,) = explain(builder, 0)
    assert (explanation.process, explanation.num_steps) == (0, 3)
    builder.kernel(220, 245, SAMPLING, device=1, process=1)
    (explanation,) = explain(builder, 0)
    assert (explanation.process, explanation.num_steps) == (1, 2)
    assert told(explanation)["host", None, None] == 60


def test_requests_of_a_second_engine_are_timed_on_its_own_process() -> None:
    builder = served().request(1, 500, 560, 600)
    builder.changes = {"processes": TWO_PROCESSES}
    builder.step(0, 520, 560, process=1).ride(0, 1, Phase.PREFILL, process=1)
    report = attribute(builder.build(), "test", [1])
    assert report.requests[1].elapsed is not None
    assert (report.explanations[0].process, report.explanations[0].num_steps) == (1, 1)


def test_the_median_and_the_slowest_are_explained_by_default() -> None:
    builder = CaptureBuilder(10_000)
    for request, length in enumerate((100, 200, 300, 400, 500)):
        builder.request(request, 1_000 * request, 1_000 * request + 50, 1_000 * request + length)
        builder.step(request, 1_000 * request + 10, 1_000 * request + 40).ride(request, request)
    builder.request(9, 11_000, 11_001, 19_000).step(9, 11_000, 11_010).ride(9, 9)
    assert [(one.request, one.reason) for one in explain(builder)] == [
        (2, "p50 of end-to-end time"),
        (4, "p99 of end-to-end time"),
    ]


def test_one_request_may_be_both() -> None:
    assert [one.reason for one in explain(served())] == ["p50 and p99 of end-to-end time"]


def test_requests_that_rode_no_step_are_not_explained() -> None:
    builder = CaptureBuilder().request(0, 0, 50, 100).request(1, 0, 50, 90, is_finished=False)
    assert explain(builder) == explain(builder, 0) == explain(builder, 1) == ()


def test_stamps_of_the_engine_are_labelled() -> None:
    builder = served()
    builder.changes = {"validity": (Validity("engine_stamps", "latencies are the engine's own"),)}
    assert not explain(builder, 0)[0].is_client


def test_explained_requests_of_a_serving_run_add_up() -> None:
    capture = synthetic_capture(80_000)
    report = attribute(capture, "synthetic")
    assert [one.reason[:3] for one in report.explanations] == ["p50", "p99"]
    for one in report.explanations:
        assert one.residual_ns == 0
        kernels_ns = sum(part.time_ns for part in one.parts if part.kind == "kernels")
        assert 0.8 < kernels_ns / one.end_to_end_ns < 1


def test_a_request_is_found_by_name_number_or_the_engine_s_id() -> None:
    requests = CaptureBuilder().request(0, 0, 1, 2, name="7").request(7, 0, 1, 2, name="req-a").build().requests
    assert find_request(requests, "7") == 0
    assert find_request(requests, "0") == 0
    assert find_request(requests, "req-a") == 7
    assert find_request(requests, "cmpl-req-a-0-1a2b") == 7
    with pytest.raises(UsageError, match="req-b") as error:
        find_request(requests, "req-b")
    assert "req-a" in str(error.value)
    with pytest.raises(UsageError):
        find_request(requests, "cmpl-req-ab-0")


intervals = st.tuples(st.integers(-20, 220), st.integers(0, 80))


@settings(max_examples=150, deadline=None)
@given(
    kernels=st.lists(
        st.tuples(intervals, st.sampled_from([GEMM, ATTENTION, SAMPLING]), st.integers(0, 1)), max_size=12
    ),
    steps=st.lists(st.tuples(intervals, st.integers(0, 1)), max_size=6),
    num_markers=st.sampled_from([0, 2]),
    requests=st.lists(intervals, min_size=1, max_size=3),
    rides=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 1)), max_size=20),
    windows=st.lists(intervals, max_size=3),
    preemptions=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 220)), max_size=3),
)
def test_the_parts_always_add_up(
    kernels: list[tuple[tuple[int, int], str, int]],
    steps: list[tuple[tuple[int, int], int]],
    num_markers: int,
    requests: list[tuple[int, int]],
    rides: set[tuple[int, int, int]],
    windows: list[tuple[int, int]],
    preemptions: list[tuple[int, int]],
) -> None:
    builder = CaptureBuilder(200, {"processes": TWO_PROCESSES})
    for (start, length), name, process in kernels:
        builder.kernel(start, start + length, name, process=process, stream=process)
    for step, ((start, length), process) in enumerate(steps):
        builder.step(step, start, start + length, process=process, num_markers=num_markers)
        if step % 2:
            builder.marker(start + 5, 2 * step, process=process).marker(start + length, 2 * step + 1, process=process)
    for request, (start, length) in enumerate(requests):
        builder.request(request, start, start + length, start + length)
    for step, request, process in rides:
        builder.ride(step, request, Phase((step + request) % 2), process=process)
    for start, length in windows:
        builder.traced(start, start + length)
    for request, time in preemptions:
        builder.preemption(request, time)
    report = attribute(builder.build(), "test", range(len(requests)))
    can = {row.request for row in report.requests if row.elapsed is not None}
    explained = {one.request for one in report.explanations}
    assert can <= explained
    assert all(not 0 <= requests[request][0] < 200 for request in explained - can)  # asked for, and not of the run
    for one in report.explanations:
        assert one.residual_ns == 0
        assert min(part.time_ns for part in one.parts) >= 0
        assert sum(part.time_ns for part in one.parts) == one.end_to_end_ns == requests[one.request][1]
