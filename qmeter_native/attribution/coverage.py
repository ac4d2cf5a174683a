"""What traced windows let one say of the time between them: ratio estimates with intervals.

The traced windows are taken as a sample of the measured window, each with its length t and its busy time y. The ratio
R = Σy / Σt, times the whole window's length W, estimates the whole's busy time. With n windows and f = Σt / W, its
standard error is ``W * sqrt((1 - f) / n * Σ(y - R t)² / (n - 1)) / mean(t)`` (Cochran, Sampling Techniques, 6.3), and
the 95 % interval is Student's with n - 1 degrees of freedom. What was traced is known: the interval never goes below
it, nor above it by more than the untraced time.
"""

from __future__ import annotations

import math
from typing import Any, Final

from numpy.typing import NDArray

from qmeter_native.attribution.student_t import t_quantile_975
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.coverage import Coverage, ScaledFamily
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.op_family import OpFamily
from qmeter_native.units import NS_PER_S, ns_to_s

__all__ = ["coverage"]

_Array = NDArray[Any]

_MIN_WINDOWS: Final = 5
"""Fewer windows do not tell how much windows differ: Student's quantile for 3 is 4.3."""
_METHOD: Final = "estimated: traced share scaled to the measured window"


def coverage(usage: DeviceUsage) -> Coverage:
    """Of one device: how much was traced, and the whole window's times by it. Families that never ran are left out."""
    family_ns = usage.window_family_ns
    return Coverage(
        device=usage.device.index,
        traced_ns=usage.traced.total_ns,
        untraced_ns=usage.wall_ns - usage.traced.total_ns,
        num_windows=len(usage.traced),
        busy_s=_whole_window(usage, usage.window_busy_ns),
        families=tuple(
            ScaledFamily(family.value, _whole_window(usage, family_ns[:, column]))
            for column, family in enumerate(OpFamily)
            if family_ns[:, column].any()
        ),
    )


def _whole_window(usage: DeviceUsage, window_ns: _Array) -> Estimate:
    """Time in the whole measured window of something that took ``window_ns`` in the traced ones."""
    seen_s = ns_to_s(int(window_ns.sum()))
    if usage.is_complete:
        return Estimate(seen_s, seen_s, seen_s, "measured")
    count, length_s = len(window_ns), (usage.traced.end_ns - usage.traced.start_ns) / NS_PER_S
    if count < _MIN_WINDOWS:
        traced = "1 traced window is" if count == 1 else f"{count} traced windows are"
        reason = f"{traced} too few to tell how much windows differ; {_MIN_WINDOWS} are needed"
        return Estimate.missing(reason, _METHOD)
    wall_s, traced_s = ns_to_s(usage.wall_ns), float(length_s.sum())
    ratio = seen_s / traced_s
    misses = window_ns / NS_PER_S - ratio * length_s
    variance = (1 - traced_s / wall_s) / count * float(misses @ misses) / (count - 1)
    half = t_quantile_975(count - 1) * wall_s * math.sqrt(variance) / (traced_s / count)
    value, most = ratio * wall_s, seen_s + wall_s - traced_s
    return Estimate(value, max(seen_s, value - half), min(most, value + half), _METHOD)
