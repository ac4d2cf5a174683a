"""What a device did in the steps that one request rode: kernels by family, idle, untraced; exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.timeline import share_time
from qmeter_native.attribution.usage import KernelNames
from qmeter_native.model.capture import Capture
from qmeter_native.model.explanation import ExplainedPart
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.phase import Phase

__all__ = ["KernelTimes", "RiddenTime"]

_Array = NDArray[Any]

_FAMILIES: Final = tuple(OpFamily)


@dataclass(frozen=True, slots=True)
class RiddenTime:
    """The rides of one request on one process, in order, none overlapping another.

    Attributes:
        start_ns, end_ns: int64, when each ride began and ended.
        phase: `Phase` of each.
        step_row: int64, row of `StepTable`.
        device: DeviceInfo.index of the steps.
    """

    start_ns: _Array
    end_ns: _Array
    phase: _Array
    step_row: _Array
    device: int


class KernelTimes:
    """Looks up what ran on a device in some rides."""

    def __init__(self, capture: Capture, names: KernelNames, traced: dict[int, Intervals]) -> None:
        """``traced`` is the traced time of each device."""
        self._kernels = capture.kernels
        self._family_of_class = names.family[names.of_class]
        self._traced = traced
        lengths = self._kernels.end_ns - self._kernels.start_ns
        self._longest_ns = int(lengths.max()) if len(lengths) else 0

    def parts(self, ridden: RiddenTime) -> list[ExplainedPart]:
        """``kernels`` by family, most time first, and ``idle_in_steps``, of prefill and then of decode; ``untraced``.

        Parts without time are left out.
        """
        steps = Intervals.of(ridden.start_ns, ridden.end_ns)
        if len(steps) == 0:
            return []
        traced = self._traced.get(ridden.device, Intervals.whole(0, 0))
        traced = traced.clipped(int(steps.start_ns[0]), int(steps.end_ns[-1]))
        cuts = np.unique(np.concatenate([ridden.start_ns, ridden.end_ns, traced.start_ns, traced.end_ns]))
        is_ridden, is_traced = steps.contains(cuts[:-1]), traced.contains(cuts[:-1])
        phase = ridden.phase[np.searchsorted(ridden.start_ns, cuts[:-1], "right") - 1]
        kernel_ns = self._by_family(ridden.device, cuts, is_ridden & is_traced, phase)
        parts, untraced = [], []
        for each in Phase:
            length_ns = np.where(is_ridden & (phase == each), np.diff(cuts), 0)
            parts += _traced_parts(each, kernel_ns[each], int(length_ns[is_traced].sum()))
            untraced.append(ExplainedPart("untraced", each.name.lower(), None, int(length_ns[~is_traced].sum())))
        return [part for part in (*parts, *untraced) if part.time_ns]

    def _by_family(self, device: int, cuts_ns: _Array, is_counted: _Array, phase: _Array) -> _Array:
        """int64 ``(phases, families)``: shared time between those cuts that count, by the phase of each."""
        kernels, num_families = self._kernels, len(_FAMILIES)
        first, last = np.searchsorted(kernels.start_ns, (cuts_ns[0] - self._longest_ns, cuts_ns[-1]))
        rows = first + np.flatnonzero(kernels.device[first:last] == device)
        family = self._family_of_class[kernels.class_id[rows]]
        sums = np.zeros(len(Phase) * num_families)
        for part in share_time(kernels.start_ns[rows], kernels.end_ns[rows], cuts_ns, is_counted):
            cell = phase[part.window].astype(np.int64) * num_families + family[part.row]
            sums += np.bincount(cell, part.shared_ns, len(sums))
        return sums.astype(np.int64).reshape(len(Phase), num_families)


def _traced_parts(phase: Phase, kernel_ns: _Array, traced_ns: int) -> list[ExplainedPart]:
    name = phase.name.lower()
    kernels = [
        ExplainedPart("kernels", name, _FAMILIES[family], int(kernel_ns[family]))
        for family in np.argsort(-kernel_ns, kind="stable").tolist()
    ]
    return [*kernels, ExplainedPart("idle_in_steps", name, None, traced_ns - int(kernel_ns.sum()))]
