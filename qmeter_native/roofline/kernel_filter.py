"""Which kernels of a capture a roofline is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.shares import Rides
from qmeter_native.model.phase import Phase
from qmeter_native.work.role import Role

__all__ = ["PHASES", "KernelFilter", "step_phases"]

_Array = NDArray[Any]

PHASES: Final = ("prefill", "decode", "mixed")
"""Of engine steps: all of its requests prefill, all decode, or some of each."""
_NO_PHASE: Final = -1


@dataclass(frozen=True, slots=True)
class KernelFilter:
    """What kernels must be; None = anything.

    Attributes:
        phase: One of `PHASES`, of the step that they belong to.
        role: Their place in the model.
        layer: Its layer, from 0.
    """

    phase: str | None = None
    role: Role | None = None
    layer: int | None = None

    def mask(self, plan: CapturePlan) -> _Array:
        """Over the rows of `KernelTable`; the meter's own kernels are never in it."""
        names, places = plan.names, plan.placed.places
        chosen: _Array = ~names.is_meter[names.of_class[plan.capture.kernels.class_id]]
        if self.phase is not None:
            phases = np.append(step_phases(plan.rides), _NO_PHASE)  # of no step: the last one
            chosen &= phases[plan.step_of_kernel] == PHASES.index(self.phase)
        if self.role is not None:
            chosen &= places.role == self.role
        if self.layer is not None:
            chosen &= places.layer == self.layer
        return chosen


def step_phases(rides: Rides) -> _Array:
    """int8, index into `PHASES` of each step; -1 without requests."""
    is_decode = rides.phase == Phase.DECODE
    prefills = np.bincount(rides.step_row[~is_decode], minlength=rides.num_steps) > 0
    decodes = np.bincount(rides.step_row[is_decode], minlength=rides.num_steps) > 0
    phase = np.where(prefills & decodes, PHASES.index("mixed"), np.where(decodes, PHASES.index("decode"), 0))
    return np.where(prefills | decodes, phase, _NO_PHASE).astype(np.int8)
