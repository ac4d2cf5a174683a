"""Windows of counter phases, also of those that a killed run did not end."""

from __future__ import annotations

from qmeter_native.capture.counter_windows import closed_windows, open_devices
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import CounterTable, CounterWindowTable


def samples(*spans: tuple[int, int, int]) -> CounterTable:
    """Two quantities for each (device, start, end)."""
    rows = [
        (*span, quantity) for span in spans for quantity in (CounterQuantity.L2_SECTORS, CounterQuantity.INSTRUCTIONS)
    ]
    device, start, end, quantity = zip(*rows, strict=True)
    return CounterTable.from_columns(
        device=device, quantity=quantity, start_ns=start, end_ns=end, value=[1.0] * len(rows)
    )


def window(device: int, enable_ns: int, disable_ns: int) -> CounterWindowTable:
    return CounterWindowTable.from_columns(
        device=[device],
        enable_ns=[enable_ns],
        start_ns=[enable_ns],
        stop_ns=[disable_ns],
        disable_ns=[disable_ns],
        interval_ns=[10],
        num_samples=[2],
        num_lost=[0],
    )


def test_phases_that_ended_are_left_as_they_are() -> None:
    counters, written = samples((0, 100, 110), (0, 110, 120)), window(0, 90, 130)
    assert open_devices(counters, written) == []
    assert closed_windows(counters, written, 500).disable_ns.tolist() == [130]


def test_a_phase_that_never_ended_lasts_until_the_run_was_last_heard_of() -> None:
    counters = samples((0, 100, 110), (1, 300, 310), (1, 310, 320))
    written = window(0, 90, 130)
    assert open_devices(counters, written) == [1]
    closed = closed_windows(counters, written, 500)
    row = {name: int(getattr(closed, name)[-1]) for name in ("device", "start_ns", "stop_ns", "disable_ns")}
    assert row == {"device": 1, "start_ns": 300, "stop_ns": 320, "disable_ns": 500}
    assert (closed.num_samples[-1], closed.interval_ns[-1]) == (2, 10)


def test_a_run_without_counters_has_no_window() -> None:
    empty = closed_windows(CounterTable.empty(), CounterWindowTable.empty(), 500)
    assert len(empty) == 0
