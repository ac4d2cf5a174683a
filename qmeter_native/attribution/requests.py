"""Where a request's time went, exactly: queue, whole steps it rode, gaps between them, host.

``queue + prefill steps + decode steps + gaps + host = last chunk - send`` to the nanosecond, on one critical rank:
the lowest-numbered of the processes whose steps the request rode. A step counts in full for everybody who rode it, so
these times are never added up over requests; what a request *used* is in `shares`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.latency import sent_inside
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.steps import StepSpans
from qmeter_native.model.manifest import Manifest
from qmeter_native.model.phase import Phase
from qmeter_native.model.report import LatencyParts
from qmeter_native.model.tables import RequestTable, StepTable

__all__ = ["critical_rides", "cut_rides", "latency_parts", "requests_of_run"]

_Array = NDArray[Any]


def critical_rides(steps: StepTable, rides: Rides) -> _Array:
    """Mask of the rides on which requests are timed: those on the lowest process that the request rode on.

    Ranks of a tensor-parallel group run the same steps, so one rank tells of all; data-parallel ones have requests of
    their own.
    """
    process = steps.process[rides.step_row]
    lowest = np.full(len(rides.requests), np.iinfo(process.dtype).max, process.dtype)
    np.minimum.at(lowest, rides.request_row, process)
    mask: _Array = process == lowest[rides.request_row]
    return mask


def requests_of_run(
    manifest: Manifest, spans: StepSpans, rides: Rides, requests: RequestTable, ride_ns: _Array, ride_j: _Array
) -> _Array:
    """Mask over ``rides.requests``: those that were sent inside the measured window, or had a part in it.

    Others, such as warm-up requests and an engine's probes, have rows in a capture only because they rode its steps.

    Args:
        manifest: Says what was measured.
        spans: When steps ran.
        rides: Who rode them.
        requests: The request table.
        ride_ns: int64, time of each ride inside the measured window.
        ride_j: float64, energy of each ride inside it.
    """
    step_start, step_end = spans.start_ns[rides.step_row], spans.end_ns[rides.step_row]
    is_inside = (step_start < manifest.measure_end_ns) & (step_end > manifest.measure_start_ns)
    is_of_run = np.isin(rides.requests, requests.request[sent_inside(manifest, requests)])
    is_of_run[rides.request_row[is_inside | (ride_ns > 0) | (ride_j > 0)]] = True
    return is_of_run


def latency_parts(
    steps: StepTable, spans: StepSpans, rides: Rides, requests: RequestTable
) -> list[LatencyParts | None]:
    """Parts of each row of ``requests``; None if it did not finish or rode no recorded step.

    A ride is cut to the request's own time and to the end of its ride before, which only matters where host and device
    clocks differ by microseconds or where calls on the host overlap.
    """
    parts: list[LatencyParts | None] = [None] * len(requests)
    if len(rides.step_row) == 0 or len(requests) == 0:
        return parts
    row_of_request = np.full(len(rides.requests), -1, np.int64)
    row_of_request[np.searchsorted(rides.requests, requests.request)] = np.arange(len(requests))
    is_timed = requests.is_finished & (requests.last_token_ns >= requests.send_ns)
    ride = np.flatnonzero(critical_rides(steps, rides))
    row = row_of_request[rides.request_row[ride]]
    is_wanted = (row >= 0) & is_timed[row]
    ride, row = ride[is_wanted], row[is_wanted]
    order = np.lexsort((spans.start_ns[rides.step_row[ride]], row))
    ride, row = ride[order], row[order]
    start, end = cut_rides(spans, rides.step_row[ride], requests.send_ns[row], requests.last_token_ns[row], row)
    _fill(parts, requests, rides.phase[ride], row, start, end)
    return parts


def cut_rides(
    spans: StepSpans, step_row: _Array, send_ns: _Array, last_ns: _Array, row: _Array
) -> tuple[_Array, _Array]:
    """Starts and ends of rides, sorted by request and start, none outside its request, none overlapping.

    Args:
        spans: When steps ran.
        step_row: int64, each ride's step. Rides are sorted by request, then by their step's start.
        send_ns: int64, when each ride's request was sent.
        last_ns: int64, when its last chunk was received.
        row: int64, which request it is of.
    """
    start = np.clip(spans.start_ns[step_row], send_ns, last_ns)
    end = np.clip(spans.end_ns[step_row], start, last_ns)
    if len(row) == 0:
        return start, end
    # A running maximum within each request: offsets that grow by more than any time keep requests apart.
    lowest = int(start.min())
    reach = int(end.max()) - lowest + 1
    group = np.cumsum(np.concatenate([[0], row[1:] != row[:-1]]))
    latest_end = np.maximum.accumulate(end - lowest + group * reach) - group * reach + lowest
    is_next = np.concatenate([[False], row[1:] == row[:-1]])
    start = np.where(is_next, np.maximum(start, np.roll(latest_end, 1)), start)
    return start, np.maximum(end, start)


def _fill(
    parts: list[LatencyParts | None], requests: RequestTable, phase: _Array, row: _Array, start: _Array, end: _Array
) -> None:
    count = len(requests)
    first = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]])) if len(row) else np.empty(0, np.int64)
    last = np.concatenate([first[1:], [len(row)]])[: len(first)] - 1
    length = end - start
    prefill = np.bincount(row, np.where(phase == Phase.PREFILL, length, 0), count).astype(np.int64)
    decode = np.bincount(row, np.where(phase == Phase.PREFILL, 0, length), count).astype(np.int64)
    for at_first, at_last in zip(first.tolist(), last.tolist(), strict=True):
        request = int(row[at_first])
        send_ns, last_ns = int(requests.send_ns[request]), int(requests.last_token_ns[request])
        queue_ns, host_ns = int(start[at_first]) - send_ns, last_ns - int(end[at_last])
        steps_ns = int(prefill[request] + decode[request])
        gaps_ns = int((start[at_first + 1 : at_last + 1] - end[at_first:at_last]).sum())
        parts[request] = LatencyParts(
            queue_ns=queue_ns,
            prefill_steps_ns=int(prefill[request]),
            decode_steps_ns=int(decode[request]),
            gaps_ns=gaps_ns,
            host_ns=host_ns,
            end_to_end_ns=last_ns - send_ns,
            residual_ns=last_ns - send_ns - queue_ns - steps_ns - gaps_ns - host_ns,
        )
