"""Elapsed time of requests, to the nanosecond, and their latencies by vLLM's definitions."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.latency import distribution, inter_token_latencies, request_latencies
from qmeter_native.attribution.requests import latency_parts
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.steps import step_spans
from qmeter_native.model.manifest import ProcessInfo
from qmeter_native.model.phase import Phase
from qmeter_native.model.report import LatencyParts
from tests.factories import CaptureBuilder


def parts_of(builder: CaptureBuilder) -> list[LatencyParts | None]:
    capture = builder.build()
    rides = Rides.of(capture.steps, capture.step_requests, capture.requests)
    return latency_parts(capture.steps, step_spans(capture), rides, capture.requests)


def two_steps() -> CaptureBuilder:
    return CaptureBuilder().step(0, 100, 150).step(1, 170, 200)


def test_the_parts_are_what_they_say() -> None:
    builder = two_steps().ride(0, 0, Phase.PREFILL).ride(1, 0).request(0, 40, 155, 210)
    assert parts_of(builder) == [LatencyParts(60, 50, 30, 20, 10, 170, 0)]


def test_riders_of_one_step_each_wait_for_all_of_it() -> None:
    builder = two_steps()
    for request in (0, 1):
        builder.ride(0, request, Phase.PREFILL).ride(1, request).request(request, 90, 155, 200)
    assert [part.prefill_steps_ns for part in parts_of(builder) if part] == [50, 50]


def test_a_step_skipped_is_a_gap() -> None:
    builder = two_steps().step(2, 220, 240).ride(0, 0, Phase.PREFILL).ride(2, 0).request(0, 100, 155, 240)
    (part,) = parts_of(builder)
    assert part is not None
    assert (part.gaps_ns, part.host_ns) == (70, 0)


def test_a_last_step_that_ends_after_the_last_chunk_is_cut() -> None:
    builder = two_steps().ride(0, 0, Phase.PREFILL).ride(1, 0).request(0, 110, 155, 190)
    assert parts_of(builder) == [LatencyParts(0, 40, 20, 20, 0, 80, 0)]


def test_requests_without_an_end_or_a_ride_have_no_parts() -> None:
    builder = two_steps().ride(0, 0).request(0, 90, 155, 0, is_finished=False).request(1, 90, 155, 200)
    assert parts_of(builder) == [None, None]


def test_the_lowest_rank_with_riders_is_the_critical_one() -> None:
    processes = tuple(ProcessInfo(index, "host", "boot", 100 + index) for index in range(3))
    builder = CaptureBuilder(1_000, {"processes": processes})
    for process, end in ((0, 130), (1, 150), (2, 180)):
        builder.step(0, 100, end, process=process)
    builder.ride(0, 0, process=1).ride(0, 0, process=2).request(0, 100, 200, 200, tokens=1)
    (part,) = parts_of(builder)
    assert part is not None
    assert part.decode_steps_ns == 50


times = st.tuples(st.integers(0, 80), st.integers(0, 120)).map(sorted)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(times, max_size=6).map(sorted),
    requests=st.lists(times, max_size=4),
    rides=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20),
)
def test_the_parts_always_add_up(
    steps: list[list[int]], requests: list[list[int]], rides: set[tuple[int, int]]
) -> None:
    builder = CaptureBuilder()
    for step, (start, end) in enumerate(steps):
        builder.step(step, start, end)
    for request, (send, last) in enumerate(requests):
        builder.request(request, send, last, last)
    for step, request in rides:
        builder.ride(step, request, Phase((step + request) % 2))
    for part in parts_of(builder):
        if part is not None:
            assert part.residual_ns == 0
            pieces = (part.queue_ns, part.prefill_steps_ns, part.decode_steps_ns, part.gaps_ns, part.host_ns)
            assert min(pieces) >= 0
            assert sum(pieces) == part.end_to_end_ns


def test_latencies_follow_vllm() -> None:
    requests = CaptureBuilder().request(0, 0, 1_000, 9_000, tokens=5).build().requests
    latencies = request_latencies(requests)
    assert latencies.ttft_s[0] == 1e-6
    assert latencies.e2e_s[0] == 9e-6
    assert latencies.tpot_s[0] == 2e-6


def test_one_token_has_no_time_per_output_token() -> None:
    latencies = request_latencies(CaptureBuilder().request(0, 0, 10, 10, tokens=1).build().requests)
    assert math.isnan(latencies.tpot_s[0])
    assert latencies.ttft_s[0] == 1e-8


def test_unfinished_requests_have_no_latency() -> None:
    latencies = request_latencies(CaptureBuilder().request(0, 0, 10, 20, is_finished=False).build().requests)
    assert math.isnan(latencies.ttft_s[0])
    assert math.isnan(latencies.e2e_s[0])


def test_gaps_between_chunks_are_pooled_over_finished_requests() -> None:
    builder = CaptureBuilder().request(0, 0, 10, 40).request(1, 0, 10, 20).request(2, 0, 10, 30, is_finished=False)
    for request, time in ((0, 10), (1, 10), (0, 25), (1, 20), (0, 40), (2, 10), (2, 30)):
        builder.chunk(request, time)
    capture = builder.build()
    gaps = inter_token_latencies(capture.requests, capture.output_tokens)
    assert sorted(np.round(gaps * 1e9).tolist()) == [10, 15, 15]


def test_a_distribution_interpolates_and_leaves_gaps_out() -> None:
    summary = distribution(np.array([1.0, 2.0, 3.0, np.nan]))
    assert (summary.count, summary.mean, summary.median) == (3, 2.0, 2.0)
    assert summary.p90 == np.percentile([1, 2, 3], 90)
    assert distribution(np.array([np.nan])).mean is None
