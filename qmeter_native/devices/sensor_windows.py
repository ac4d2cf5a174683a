"""What the energy counters of GPUs look at.

NVML's counter is no integral on some parts: it adds up samples of a power that went through a low-pass filter.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["counter_window"]

_WINDOWS_S: Final = ((r"\bH200\b", (0.1, 0.02, 0.016, -0.001)),)  # measured: docs/decisions/0012
"""By a regular expression found in the name: see `counter_window`."""


def counter_window(chip: str) -> tuple[float, float, float, float] | None:
    """What the energy counter of a part looks at; None where nobody has measured that, and it counts as an integral.

    Yang, Adámek and Armour (SC'24) found that readings of *power* see 25 of 100 ms on an A100 and an H100 and 20 of 100
    on a GH200. That cannot be taken over: on an H200 the *counter* adds up five looks a tick. A calibrated profile
    tells of any board (`SensorModel.counter_time_constant_s`).

    Args:
        chip: NVML's name of the device, such as ``NVIDIA H200``.

    Returns:
        ``(tick_s, look_s, time_constant_s, lag_s)`` as `SensorWindow` takes them.
    """
    return next((window for pattern, window in _WINDOWS_S if re.search(pattern, chip)), None)
