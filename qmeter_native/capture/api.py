"""The Python API: trace any code of yours, read what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qmeter_native.capture.counter_sampler import CounterOptions
from qmeter_native.capture.session import Session, SessionOptions

if TYPE_CHECKING:
    from qmeter_native.model.report import AttributionReport

__all__ = ["report", "trace"]


@contextmanager
def trace(
    path: str | Path,
    *,
    device: str = "auto",
    idle_s: float = 0.0,
    kernels: bool = True,
    counters: CounterOptions | float | None = None,
) -> Iterator[Session]:
    """Trace the body: energy, power, clocks, ranges and, on CUDA, kernels; leaves the capture ``path`` behind.

    Args:
        path: Directory to create, by custom ``NAME.qmt``.
        device: ``auto``, ``cpu`` or ``cuda``.
        idle_s: Seconds of idle power to measure before the body runs. Without it idle energy is estimated by time.
        kernels: Trace kernels: through CUPTI on CUDA; on a CPU the operators of torch, if torch is loaded, which are
            kept in memory until the end (1.7 kB each). Enter before CUDA graphs are captured.
        counters: Seconds for which hardware counters are sampled, from a second after the body began; or all that can
            be said about it. The GPU draws more power meanwhile. None: never.

    Yields:
        The running `Session`; ``session.range(name)`` and ``@session.traced()`` record ranges.

    Raises:
        NativeError: The extension does not load.
        CaptureError: ``path`` exists already or cannot be written.
    """
    options = counters if counters is None or isinstance(counters, CounterOptions) else CounterOptions(counters)
    with Session(path, SessionOptions(device=device, kernels=kernels, counters=options)) as session:
        if idle_s > 0:
            session.measure_idle(idle_s)
        operators = session.operators() if kernels and "torch" in sys.modules else None
        session.begin()
        try:
            yield session
        finally:
            session.end()
            if operators is not None:
                session.describe(tracer=operators.close())


def report(
    path: str | Path,
    *,
    static_policy: str = "separate",
    profile: str | Path | None = None,
    tdp_w: float | None = None,
) -> AttributionReport:
    """Attribute a capture. Needs no GPU and no extension.

    Args:
        path: The capture.
        static_policy: Who gets the idle and active power of busy time: ``separate`` (nobody), ``by-time`` or
            ``by-energy``.
        profile: Device profile of ``calibrate``; by default what the capture carries.
        tdp_w: Power to assume of devices whose energy nothing measured, while kernels run.

    Raises:
        CaptureError: The capture is missing, foreign, damaged or too new.
        ProfileError: The profile is, or is of another device.
    """
    from qmeter_native.attribution.profiles import profiles_for
    from qmeter_native.attribution.report import attribute
    from qmeter_native.capture.open import open_capture
    from qmeter_native.devices.profile_store import load_profile
    from qmeter_native.model.static_policy import StaticPolicy

    capture = open_capture(Path(path))
    profiles = {} if profile is None else profiles_for(capture.manifest, load_profile(profile))
    return attribute(capture, Path(path).name, (), profiles, StaticPolicy(static_policy), tdp_w)
