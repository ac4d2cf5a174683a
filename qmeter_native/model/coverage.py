"""How much of the measured window kernels were recorded in."""

from __future__ import annotations

from dataclasses import dataclass

from qmeter_native.model.estimate import Estimate

__all__ = ["Coverage", "ScaledFamily"]


@dataclass(frozen=True, slots=True)
class ScaledFamily:
    """Whole-window time of one op family, estimated from the traced windows (exact where all was traced)."""

    op_family: str
    time_s: Estimate


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of one device: traced time and what it lets us say of the rest.

    Attributes:
        device: DeviceInfo.index.
        traced_ns: Time inside the measured window in which the kernels of all its processes were recorded.
        untraced_ns: The rest of the window.
        num_windows: Traced windows.
        busy_s: Busy time of the whole measured window: a ratio estimate with a 95 % interval over the traced windows.
        families: The same by op family.
    """

    device: int
    traced_ns: int
    untraced_ns: int
    num_windows: int
    busy_s: Estimate
    families: tuple[ScaledFamily, ...]

    @property
    def is_complete(self) -> bool:
        """Everything was traced."""
        return not self.untraced_ns
