"""Which part of the time the energy counters of GPUs look at.

NVML's counter is no integral on some parts: each tick adds its length times the mean power of only the last part of it.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["counter_window"]

_WINDOWS_S: Final = (
    (r"\bGH200\b", (0.1, 0.020, 0.0)),  # Yang, Adámek, Armour, SC'24: 20 of 100 ms
    (r"\bH200\b", (0.1, 0.027, 0.0)),  # measured: docs/decisions/0012
    (r"\bG?H100\b", (0.1, 0.025, 0.0)),  # Yang, Adámek, Armour, SC'24: 25 of 100 ms
    (r"\bG?A100\b", (0.1, 0.025, 0.0)),  # likewise
)
"""By a regular expression found in the name: seconds between two ticks, looked at in each, and from there to the tick.
The paper tells of no lag."""


def counter_window(chip: str) -> tuple[float, float, float] | None:
    """What the energy counter of a part looks at: ``(tick_s, window_s, lag_s)``, the last ``window_s`` of each tick but
    for the lag; None where nobody has measured that, and the counter counts as an integral.

    A calibrated profile knows better (`SensorModel.counter_window_s`): boards and drivers differ.

    Args:
        chip: NVML's name of the device, such as ``NVIDIA H200``, or the chip's, such as ``GA100``.

    Sources: Yang, Adámek and Armour, "Accurate and Convenient Energy Measurements for GPUs", SC'24; H200: measured with
    loads of known shape (docs/decisions/0012-the-counter-looks-at-a-quarter.md).
    """
    return next((window for pattern, window in _WINDOWS_S if re.search(pattern, chip)), None)
