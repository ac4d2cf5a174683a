"""qmeter-native: which quantized kernel spent the milliseconds and joules, for which request, in which phase.

::

    import qmeter_native

    with qmeter_native.trace("run.qmt") as session:
        with session.range("forward"):
            model(batch)
    report = qmeter_native.report("run.qmt")
    print(report.totals.energy_gross_j)

Importing this module loads no torch, opens no GPU and costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qmeter_native.capture.api import report, trace

__all__ = ["__version__", "report", "trace"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("report", "trace"):
        from qmeter_native.capture import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
