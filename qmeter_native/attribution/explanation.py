"""Why a request took as long as it did: its elapsed time by what the device did in it, exactly.

A request's time is cut at the edges of the steps it rode (as in `requests`) and of the time in which kernels were
recorded. In ridden, traced time the device's kernels share each nanosecond as everywhere (`timeline`); what none of
them ran in is idle. So the parts add up to the end-to-end time to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.requests import cut_rides
from qmeter_native.attribution.ridden_time import KernelTimes, RiddenTime
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.steps import StepSpans
from qmeter_native.model.capture import Capture
from qmeter_native.model.explanation import ExplainedPart, RequestExplanation
from qmeter_native.model.phase import Phase
from qmeter_native.model.report import LatencyParts

__all__ = ["explain_requests"]

_Array = NDArray[Any]

_PERCENTS = (50, 99)


def explain_requests(
    capture: Capture,
    spans: StepSpans,
    rides: Rides,
    kernel_times: KernelTimes,
    parts: list[LatencyParts | None],
    e2e_s: _Array,
    asked: Iterable[int] = (),
) -> tuple[RequestExplanation, ...]:
    """Explain some requests; those that did not finish or rode no recorded step are left out.

    Args:
        capture: The capture.
        spans: When its steps ran.
        rides: Who rode them.
        kernel_times: What ran in them.
        parts: Of each row of the request table, what `latency_parts` found; None cannot be explained.
        e2e_s: float64, end-to-end time of the rows that percentiles are taken over; NaN elsewhere.
        asked: Numbers of the requests to explain; if there are none, those nearest to the median and to the 99th
            percentile of ``e2e_s``.
    """
    explainer = _Explainer(capture, spans, rides, kernel_times)
    requests = capture.requests.request
    wanted = set(asked)
    can = np.array([part is not None for part in parts], bool)
    if wanted:
        rows = dict.fromkeys(np.flatnonzero(np.isin(requests, list(wanted))).tolist(), "asked for")
    else:
        rows = _percentile_rows(e2e_s, can)
    return tuple(explainer.explain(row, reason) for row, reason in rows.items() if can[row])


def _percentile_rows(e2e_s: _Array, can: _Array) -> dict[int, str]:
    """The row nearest to each percentile among those that can be explained, and what it is."""
    sample = e2e_s[~np.isnan(e2e_s)]
    rows = np.flatnonzero(~np.isnan(e2e_s) & can)
    if len(rows) == 0:
        return {}
    names: dict[int, list[str]] = {}
    for percent, wanted in zip(_PERCENTS, np.percentile(sample, _PERCENTS), strict=True):
        row = int(rows[np.argmin(np.abs(e2e_s[rows] - wanted))])
        names.setdefault(row, []).append(f"p{percent}")
    return {row: f"{' and '.join(percents)} of end-to-end time" for row, percents in names.items()}


@dataclass(frozen=True, slots=True)
class _Explainer:
    capture: Capture
    spans: StepSpans
    rides: Rides
    kernel_times: KernelTimes

    def explain(self, row: int, reason: str) -> RequestExplanation:
        """Explain a row of the request table on the process that was busiest in its steps (of equals, the lowest)."""
        requests = self.capture.requests
        process, ridden, ridden_parts = self._critical(row)
        send_ns, last_ns = int(requests.send_ns[row]), int(requests.last_token_ns[row])
        parts = (
            ExplainedPart("queue", None, None, int(ridden.start_ns[0]) - send_ns),
            *ridden_parts,
            ExplainedPart("host", None, None, last_ns - int(ridden.end_ns[-1])),
        )
        return RequestExplanation(
            request=int(requests.request[row]),
            name=requests.name[row],
            reason=reason,
            process=process,
            end_to_end_ns=last_ns - send_ns,
            parts=parts,
            num_steps=len(ridden.step_row),
            residual_ns=last_ns - send_ns - sum(part.time_ns for part in parts),
            is_client=all(entry.code != "engine_stamps" for entry in self.capture.manifest.validity),
        )

    def _critical(self, row: int) -> tuple[int, RiddenTime, list[ExplainedPart]]:
        """The critical process, the request's rides there, and what the device did in them."""
        request = self.capture.requests.request[row]
        rides = np.flatnonzero(self.rides.requests[self.rides.request_row] == request)
        process = self.capture.steps.process[self.rides.step_row[rides]]
        told = []
        for each in np.unique(process).tolist():
            ridden = self._ridden(rides[process == each], row)
            parts = self.kernel_times.parts(ridden)
            busy_ns = sum(part.time_ns for part in parts if part.kind == "kernels")
            told.append((busy_ns, -each, ridden, parts))
        _, negative, ridden, parts = max(told, key=lambda entry: entry[:2])
        return -negative, ridden, parts

    def _ridden(self, rides: _Array, row: int) -> RiddenTime:
        requests, steps = self.capture.requests, self.capture.steps
        rides = rides[np.argsort(self.spans.start_ns[self.rides.step_row[rides]], kind="stable")]
        step_row, rows = self.rides.step_row[rides], np.full(len(rides), row)
        start, end = cut_rides(self.spans, step_row, requests.send_ns[rows], requests.last_token_ns[rows], rows)
        return RiddenTime(
            start_ns=start,
            end_ns=end,
            phase=self.rides.phase[rides],
            step_row=step_row,
            is_known=~self.spans.has_lost_marker[step_row],
            is_preempted=self._is_preempted(int(requests.request[row]), rides),
            device=int(steps.device[step_row[0]]),
        )

    def _is_preempted(self, request: int, rides: _Array) -> _Array:
        """Mask of the gaps between ``rides`` in which the request had been put back into the queue.

        A preempted request lost its cache and comes back as a prefill: the first ride in prefill whose step the host
        began after the preemption, or the first ride after it if none is. By host time, as the device may still have
        been at earlier steps.
        """
        preemptions = self.capture.preemptions
        host_ns = self.capture.steps.start_ns[self.rides.step_row[rides[1:]]]
        is_prefill = self.rides.phase[rides[1:]] == Phase.PREFILL
        is_preempted = np.zeros(len(host_ns), bool)
        for time_ns in preemptions.time_ns[preemptions.request == request].tolist():
            later = np.flatnonzero(host_ns >= time_ns)
            resumed = later[is_prefill[later]]
            is_preempted[(resumed if len(resumed) else later)[:1]] = True
        return is_preempted
