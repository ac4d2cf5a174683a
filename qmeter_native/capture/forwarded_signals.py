"""What signals to the launcher of a command mean."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qmeter_native.capture.process_tree import ProcessTree
from qmeter_native.capture.trace_schedule import TraceSchedule

__all__ = ["forwarded_signals"]


@contextmanager
def forwarded_signals(tree: ProcessTree, schedule: TraceSchedule) -> Iterator[None]:
    """SIGTERM and SIGHUP go to the command, SIGUSR1 switches tracing. What is ignored, as under nohup, stays so.

    Must be entered in the main thread.
    """
    handlers: dict[signal.Signals, Callable[..., Any]] = {
        signal.SIGTERM: lambda *_: tree.send(signal.SIGTERM),
        signal.SIGHUP: lambda *_: tree.send(signal.SIGHUP),
        signal.SIGUSR1: lambda *_: schedule.toggle(),
    }
    old = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
