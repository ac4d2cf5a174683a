"""Builders of captures with hardware counters whose true rates are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import CounterTable, CounterWindowTable, KernelTable
from tests.factories import T0, CaptureBuilder

_Array = NDArray[Any]
_RAMP_STEPS = 15


def kernel_rows(start_ns: _Array, end_ns: _Array, class_id: _Array, stream: _Array | int = 7) -> KernelTable:
    """Kernels of device 0 at times after ``T0``, in order of start."""
    order = np.argsort(start_ns, kind="stable")
    rows = len(order)
    stream = np.broadcast_to(stream, (rows,))
    columns: dict[str, Any] = {spec.name: np.zeros(rows) for spec in KernelTable.columns()}
    columns |= {"start_ns": T0 + start_ns[order], "end_ns": T0 + end_ns[order], "class_id": class_id[order]}
    return KernelTable.from_columns(**(columns | {"stream": stream[order], "range_id": np.full(rows, -1)}))


def chain(rng: np.random.Generator, mean_ns: list[int], count: int, gap_ns: int = 900) -> KernelTable:
    """``count`` rounds of kernels one after another, one of each class, with jittered lengths and gaps."""
    length = (np.tile(mean_ns, count) * rng.lognormal(0.0, 0.1, len(mean_ns) * count)).astype("i8") + 1
    gap = rng.integers(0, 2 * gap_ns + 1, len(length))
    end = np.cumsum(length + gap)
    return kernel_rows(end - length, end, np.tile(np.arange(len(mean_ns)), count))


def counted(
    kernels: KernelTable,
    rates: dict[CounterQuantity, list[float]],
    *,
    background: float = 0.0,
    interval_ns: int = 50_000,
    noise: float = 0.0,
    lag_ns: int = 0,
    ramp_ns: int = 0,
    jitter_ns: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Capture:
    """A capture of kernels and of samples of what they did.

    Args:
        kernels: What ran.
        rates: By quantity, counts per second of each class.
        background: Counts per second of every quantity while nothing runs.
        interval_ns: Length of a sample.
        noise: Relative noise of each sample.
        lag_ns: By how much samples are stamped late.
        ramp_ns: Time in which a kernel's rate rises linearly at its beginning, and falls at its end.
        jitter_ns: Standard deviation of each stamp.
        rng: Of the noise and of the phase of the first sample.
    """
    rng = rng or np.random.default_rng(0)
    begin = int(kernels.start_ns[0]) - interval_ns + int(rng.integers(interval_ns))
    edges = np.arange(begin, int(kernels.end_ns.max()) + 2 * interval_ns, interval_ns)
    stamps = edges + lag_ns + np.rint(jitter_ns * rng.standard_normal(len(edges))).astype("i8")
    tables = []
    for quantity, rate in rates.items():
        value = np.diff(_ramped(kernels, np.array(rate), background, edges, ramp_ns))
        value *= 1 + noise * rng.standard_normal(len(value))
        tables.append(_samples(quantity, stamps, value))
    builder = CaptureBuilder(int(edges[-1]) - T0 + 1_000_000)
    for number in range(int(kernels.class_id.max()) + 1):
        builder.kernel(0, 1, f"kernel{number}")
    capture = builder.build()
    return replace(
        capture,
        manifest=replace(capture.manifest, start_ns=int(edges[0]), measure_start_ns=int(edges[0])),
        kernels=kernels,
        counters=CounterTable.concat(tables),
        counter_windows=_window(int(edges[0]) - abs(lag_ns), int(edges[-1]) + abs(lag_ns), interval_ns, len(edges) - 1),
    )


def _samples(quantity: CounterQuantity, edges_ns: _Array, value: _Array) -> CounterTable:
    return CounterTable.from_columns(
        device=np.zeros(len(value)),
        quantity=np.full(len(value), quantity),
        start_ns=edges_ns[:-1],
        end_ns=edges_ns[1:],
        value=value,
    )


def _window(start_ns: int, stop_ns: int, interval_ns: int, num_samples: int) -> CounterWindowTable:
    return CounterWindowTable.from_columns(
        device=[0],
        enable_ns=[start_ns - 1],
        start_ns=[start_ns],
        stop_ns=[stop_ns],
        disable_ns=[stop_ns + 1],
        interval_ns=[interval_ns],
        num_samples=[num_samples],
        num_lost=[0],
    )


def _ramped(kernels: KernelTable, rate: _Array, background: float, time_ns: _Array, ramp_ns: int) -> _Array:
    """`_cumulative` of kernels whose rates rise and fall: the mean of kernels that begin later and end earlier."""
    cuts_ns = (np.arange(_RAMP_STEPS) + 0.5) * ramp_ns / _RAMP_STEPS if ramp_ns else np.zeros(1)
    parts = []
    for cut_ns in cuts_ns.astype("i8"):
        cut = replace(kernels, start_ns=kernels.start_ns + cut_ns, end_ns=kernels.end_ns - cut_ns)
        parts.append(_cumulative(cut, rate, background, time_ns))
    counts: _Array = np.mean(parts, axis=0)
    return counts


def _cumulative(kernels: KernelTable, rate: _Array, background: float, time_ns: _Array) -> _Array:
    """Counts before each time: every kernel at its class's rate while it runs, and the background while none does."""
    per_ns = rate[kernels.class_id] / 1e9
    event = np.concatenate([kernels.start_ns, kernels.end_ns])
    order = np.argsort(event, kind="stable")
    at = event[order]
    slope = np.cumsum(np.concatenate([per_ns, -per_ns])[order])
    running = np.cumsum(np.concatenate([np.ones(len(per_ns), int), np.full(len(per_ns), -1)])[order])
    slope[running == 0] = background / 1e9
    total = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(at))])
    inside = np.interp(time_ns - T0, at - T0, total)
    before = np.minimum(time_ns - at[0], 0) * background / 1e9
    after = np.maximum(time_ns - at[-1], 0) * background / 1e9
    counts: _Array = inside + before + after
    return counts
