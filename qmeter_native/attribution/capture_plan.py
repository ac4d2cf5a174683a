"""What is known of a capture before any of its devices is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.placed_work import PlacedWork
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.steps import StepSpans
from qmeter_native.model.capture import Capture
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["CapturePlan"]


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """A capture with its kernels in their steps and places.

    Attributes:
        capture: The capture.
        names: Its kernel names.
        spans: When its steps ran.
        step_of_kernel: That of `kernel_steps`.
        rides: Who rode which step.
        placed: Kernels in their places in the model.
        policy: Who gets static joules.
        tdp_w: Declared power of devices whose energy nothing measured, while kernels run; None if none was declared.
    """

    capture: Capture
    names: KernelNames
    spans: StepSpans
    step_of_kernel: NDArray[Any]
    rides: Rides
    placed: PlacedWork
    policy: StaticPolicy
    tdp_w: float | None = None
