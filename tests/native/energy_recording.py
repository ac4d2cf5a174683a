"""A running energy sampler with a spool of its own, and what it has recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from qmeter_native import _native
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.table import Table
from qmeter_native.model.tables import ClockPairTable, ClockTable, EnergyTable, PowerTable, ThrottleTable
from qmeter_native.storage.spool import SpoolContents, read_spool

__all__ = ["Edge", "EnergyRecording", "wait_until"]

Edge = tuple[int, int, int]
"""``(low_ns, high_ns, energy_uj)``."""

_AnyTable = TypeVar("_AnyTable", bound=Table)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return when ``condition`` holds; fail the test if it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "what the test waits for did not happen"
        time.sleep(0.005)


class EnergyRecording:
    """Starts at once. Read what was recorded after `close`."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self._path = path
        self._spool = _native.Spool(str(path), identity='{"format": "qmeter-spool", "version": 1}')
        self.sampler = _native.EnergySampler(self._spool, **options)

    def close(self) -> None:
        self.sampler.close()
        self._spool.close()

    def wait_for_edges(self, count: int) -> None:
        """Wait until all devices together have shown ``count`` edges."""
        wait_until(lambda: bool(self.sampler.stats()["edges"] >= count))

    def contents(self) -> SpoolContents:
        self.close()
        return read_spool(self._path)

    def edges(self, device: int = 0) -> list[Edge]:
        """Energy records of a device, in order."""
        table = self._table(EnergyTable)
        rows = zip(table.device, table.low_ns, table.high_ns, table.energy_uj, strict=True)
        return [(int(low), int(high), int(energy)) for index, low, high, energy in rows if index == device]

    def power(self, source: EnergySource, device: int = 0) -> list[tuple[int, int]]:
        """``(time_ns, power_mw)`` of a device and a source, in order."""
        table = self._table(PowerTable)
        rows = zip(table.device, table.source, table.time_ns, table.power_mw, strict=True)
        return [(int(time_ns), int(mw)) for index, kind, time_ns, mw in rows if (index, kind) == (device, source)]

    def clocks(self) -> ClockTable:
        return self._table(ClockTable)

    def throttles(self) -> ThrottleTable:
        return self._table(ThrottleTable)

    def clock_pairs(self) -> ClockPairTable:
        return self._table(ClockPairTable)

    def _table(self, kind: type[_AnyTable]) -> _AnyTable:
        return cast(_AnyTable, self.contents().tables[kind.NAME])
