"""Several batches for one server, given to an engine that answers from a script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any, cast

import numpy as np
import pytest

from qmeter_native.capture.session import Session
from qmeter_native.errors import EngineError
from qmeter_native.storage.spool_records import RecordKind
from qmeter_native.workload.workload import Workload
from tests.engines import ScriptedEngine
from tools.batch_loads import BatchLoads


class FakeSession:
    """Keeps the names of its ranges, the calls that bound the window, and the records of its spool."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.records: dict[RecordKind, list[np.ndarray[Any, Any]]] = {}
        self.spool = self

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        yield
        self.events.append(name)

    def begin(self) -> None:
        self.events.append("begin")

    def end(self) -> None:
        self.events.append("end")

    def measure_idle(self, seconds: float, wait: Any) -> None:
        self.events.append(f"idle {seconds}")

    def intern(self, text: str) -> int:
        return len(text)

    def append(self, kind: RecordKind, rows: np.ndarray[Any, Any]) -> None:
        self.records.setdefault(kind, []).append(rows)


def give(loads: BatchLoads, engine: ScriptedEngine) -> FakeSession:
    session = FakeSession()
    loads.give(cast(Session, session), engine, idle_s=0.5, stop=Event(), observe=lambda _: None)
    return session


def loads(**changes: Any) -> BatchLoads:
    values: dict[str, Any] = {"batches": (2, 3), "seconds": 0.01, "has_counters": False}
    return BatchLoads("http://nowhere", Workload(input_len=4, output_len=5), **values | changes)


def test_every_batch_is_served_in_a_range_of_its_own_with_numbers_that_no_other_request_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tools.batch_loads._REST_S", 0.0)
    engine = ScriptedEngine()
    session = give(loads(), engine)
    assert session.events == ["idle 0.5", "begin", "batch:2", "batch:3", "end"]
    numbers = np.concatenate([rows["request"] for rows in session.records[RecordKind.REQUEST]])
    assert numbers.tolist() == list(range(len(numbers)))
    assert len(numbers) >= 5
    chunks = np.concatenate([rows["request"] for rows in session.records[RecordKind.OUTPUT_TOKEN]])
    assert (np.bincount(chunks) == 5).all()
    assert set(range(len(numbers))) <= set(engine.prompts)


def test_an_engine_that_breaks_ends_the_load() -> None:
    with pytest.raises(EngineError, match="was not done"):
        give(loads(), ScriptedEngine(breaks_after=3 * 5 + 4))
