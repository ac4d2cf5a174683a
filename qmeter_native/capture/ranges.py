"""Ranges (NVTX's word): named stretches of time that a program opens and closes, nested per thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["RangeRecorder"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class RangeRecorder:
    """Writes a record for each range when it closes. Safe to use from any thread."""

    def __init__(self, spool: Any) -> None:
        self._spool = spool
        self._depth = threading.local()

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        """Record the time that the body takes, also if it raises."""
        depth = getattr(self._depth, "value", 0)
        self._depth.value = depth + 1
        start_ns = time.time_ns()
        try:
            yield
        finally:
            end_ns = max(start_ns, time.time_ns())
            self._depth.value = depth
            record = np.zeros(1, RECORD_DTYPES[RecordKind.RANGE])
            record[0] = (start_ns, end_ns, self._spool.intern(name), threading.get_native_id(), depth)
            self._spool.append(RecordKind.RANGE, record)

    def decorate(self, name: str | None = None) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
        """Decorator that records each call of a function as a range, named after it unless ``name`` is given."""

        def decorator(function: Callable[_P, _R]) -> Callable[_P, _R]:
            @wraps(function)
            def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
                with self.range(name or function.__qualname__):
                    return function(*args, **kwargs)

            return wrapper

        return decorator
