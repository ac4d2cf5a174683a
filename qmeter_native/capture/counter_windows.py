"""Windows of counter phases that a killed run could not write any more."""

from __future__ import annotations

import numpy as np

from qmeter_native.model.tables import CounterTable, CounterWindowTable

__all__ = ["closed_windows", "open_devices"]


def open_devices(counters: CounterTable, windows: CounterWindowTable) -> list[int]:
    """Devices with samples after their last window: the run ended before their phase did."""
    return [
        int(device)
        for device in np.unique(counters.device)
        if counters.end_ns[counters.device == device].max() > _last_disable_ns(windows, int(device))
    ]


def closed_windows(counters: CounterTable, windows: CounterWindowTable, last_ns: int) -> CounterWindowTable:
    """``windows``, and one for each device whose phase never ended, up to ``last_ns``: until then the meter was on.

    Args:
        counters: All samples.
        windows: What was written.
        last_ns: When the run was last heard of.
    """
    pieces = [windows]
    for device in open_devices(counters, windows):
        is_open = (counters.device == device) & (counters.end_ns > _last_disable_ns(windows, device))
        start, end = counters.start_ns[is_open], counters.end_ns[is_open]
        pieces.append(
            CounterWindowTable.from_columns(
                device=[device],
                enable_ns=[start.min()],
                start_ns=[start.min()],
                stop_ns=[end.max()],
                disable_ns=[max(int(end.max()), last_ns)],
                interval_ns=[int(np.median(end - start))],
                num_samples=[len(np.unique(end))],
                num_lost=[0],
            )
        )
    return CounterWindowTable.concat(pieces)


def _last_disable_ns(windows: CounterWindowTable, device: int) -> int:
    return int(windows.disable_ns[windows.device == device].max(initial=0))
