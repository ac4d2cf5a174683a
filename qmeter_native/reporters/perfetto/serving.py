"""Engine steps, requests and ranges: what the engine and the user's code did."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.reporters.perfetto.packets import Slices
from qmeter_native.reporters.perfetto.stage import PHASES, Stage

__all__ = ["range_slices", "request_slices", "step_slices"]

_Array = NDArray[Any]


def step_slices(stage: Stage) -> Slices:
    """Every step of the window, under its device, named by its phase; with its riders and tokens as arguments."""
    steps, spans, texts = stage.capture.steps, stage.spans, stage.texts
    rows = stage.window.touches(spans.start_ns, spans.end_ns)
    rows = rows[np.argsort(spans.start_ns[rows], kind="stable")]
    num_requests = np.bincount(stage.rides.step_row, minlength=len(steps))
    num_tokens = np.bincount(stage.rides.step_row, stage.rides.num_scheduled, minlength=len(steps)).astype(np.int64)
    track = np.zeros(len(rows), np.int64)
    for device in np.unique(steps.device[rows]).tolist():
        mine = np.flatnonzero(steps.device[rows] == device)
        parent = stage.device_tracks.get(device, 0)
        track[mine] = stage.lanes("engine steps", parent, spans.start_ns[rows[mine]], spans.end_ns[rows[mine]])
    return Slices(
        spans.start_ns[rows],
        spans.end_ns[rows],
        track,
        texts.names(f"step: {phase}" for phase in PHASES)[stage.step_phases()[rows]],
        numbers={
            texts.key("step"): steps.step[rows],
            texts.key("requests"): num_requests[rows],
            texts.key("tokens"): num_tokens[rows],
        },
    )


def request_slices(stage: Stage) -> tuple[Slices, int]:
    """Every request of the window with its queue, prefill and decode inside, and how many requests they are."""
    requests, texts = stage.capture.requests, stage.texts
    bounds = _request_bounds(stage)
    rows = stage.window.touches(bounds[0], bounds[3])
    rows = rows[np.argsort(bounds[0][rows], kind="stable")]
    taken = requests.take(rows)
    bounds = bounds[:, rows]
    parent = stage.tracks.add("requests") if len(rows) else 0
    track = stage.lanes("request", parent, bounds[0], bounds[3])
    names = [texts.names(f"request {name}" for name in taken.name.tolist())]
    names += [np.repeat(texts.names([part]), len(rows)) for part in ("queue", "prefill", "decode")]
    # Each request's four slices follow one another, the outer one first; parts without length are left out.
    start = np.stack([bounds[0], bounds[0], bounds[1], bounds[2]], axis=1).ravel()
    end = np.stack([bounds[3], bounds[1], bounds[2], bounds[3]], axis=1).ravel()
    is_outer = np.arange(len(start)) % 4 == 0
    keep = is_outer | (end > start)
    numbers = {"prompt tokens": taken.num_prompt_tokens, "output tokens": taken.num_output_tokens}
    slices = Slices(
        start[keep],
        end[keep],
        np.repeat(track, 4)[keep],
        np.stack(names, axis=1).ravel()[keep],
        numbers={texts.key(key): np.repeat(values.astype(np.int64), 4)[keep] for key, values in numbers.items()},
    )
    return slices, len(rows)


def _request_bounds(stage: Stage) -> _Array:
    """Sent, first step begun, first token, last token: int64 ``(4, requests)``, never going back.

    A request that was cut off ends with the measurement; one that rode no step waited until its end.
    """
    requests, rides = stage.capture.requests, stage.rides
    never = np.iinfo(np.int64).max
    ridden = np.full(len(rides.requests), never, np.int64)
    np.minimum.at(ridden, rides.request_row, stage.spans.start_ns[rides.step_row])
    stop = stage.capture.manifest.measure_end_ns
    last = np.where(requests.is_finished, requests.last_token_ns, np.maximum(stop, requests.send_ns))
    first = np.where(requests.first_token_ns > 0, requests.first_token_ns, last)
    begun = ridden[np.searchsorted(rides.requests, requests.request)]
    first = np.clip(first, requests.send_ns, np.maximum(last, requests.send_ns))
    return np.stack([requests.send_ns, np.clip(begun, requests.send_ns, first), first, np.maximum(last, first)])


def range_slices(stage: Stage) -> Slices:
    """Every range of the window, under its process and thread."""
    ranges, texts = stage.capture.ranges, stage.texts
    rows = stage.window.touches(ranges.start_ns, ranges.end_ns)
    rows = rows[np.lexsort((ranges.depth[rows], ranges.start_ns[rows]))]
    taken = ranges.take(rows)
    track = np.zeros(len(rows), np.int64)
    for process in np.unique(taken.process).tolist():
        info = stage.capture.manifest.processes[process]
        parent = stage.tracks.add(f"process {info.pid} on {info.host}")
        for thread in np.unique(taken.thread[taken.process == process]).tolist():
            mine = np.flatnonzero((taken.process == process) & (taken.thread == thread))
            start, end = taken.start_ns[mine], taken.end_ns[mine]
            track[mine] = stage.lanes(f"ranges of thread {thread}", parent, start, end, may_nest=True)
    return Slices(taken.start_ns, taken.end_ns, track, texts.names(taken.name.tolist()))
