"""What happened from the first step that a request rode to the end of the last: kernels, idle, gaps, untraced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.timeline import BusyTime, share_time
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
        is_known: Mask; False where a step's markers were not recorded, so that only the host's call is known.
        is_preempted: Mask over the gaps, one fewer than rides: the request had been put back into the queue.
        device: DeviceInfo.index of the steps.
    """

    start_ns: _Array
    end_ns: _Array
    phase: _Array
    step_row: _Array
    is_known: _Array
    is_preempted: _Array
    device: int

    @property
    def gaps(self) -> tuple[_Array, _Array]:
        """int64, where the gaps between rides begin and end."""
        return self.end_ns[:-1], self.start_ns[1:]


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
        """Parts that add up to the time from the first ride's start to the last one's end.

        In order: ``kernels`` by family, most time first, and ``idle_in_steps``, of prefill and then of decode;
        ``gaps``, ``preempted``; ``untraced`` by phase; those without time are left out. A gap beside a step whose
        markers were not recorded is untraced where kernels were not recorded either: the device may have been at that
        step.
        """
        traced = self._traced.get(ridden.device, Intervals.whole(0, 0))
        in_steps = _untraced_ns(traced, ridden.start_ns, ridden.end_ns)
        start, end = ridden.gaps
        is_hidden = ~ridden.is_preempted & ~(ridden.is_known[:-1] & ridden.is_known[1:])
        in_gaps = np.where(is_hidden, _untraced_ns(traced, start, end), 0)
        preempted_ns = int((end - start)[ridden.is_preempted].sum())
        gaps_ns = int((end - start - in_gaps).sum()) - preempted_ns
        kernel_ns = self._by_family(ridden, traced)
        parts, untraced = [], []
        for phase in Phase:
            is_phase = ridden.phase == phase
            traced_ns = int((ridden.end_ns - ridden.start_ns - in_steps)[is_phase].sum())
            parts += _traced_parts(phase, kernel_ns[phase], traced_ns)
            untraced_ns = int(in_steps[is_phase].sum() + in_gaps[is_phase[:-1]].sum())
            untraced.append(ExplainedPart("untraced", phase.name.lower(), None, untraced_ns))
        gaps = (ExplainedPart("gaps", None, None, gaps_ns), ExplainedPart("preempted", None, None, preempted_ns))
        return [part for part in (*parts, *gaps, *untraced) if part.time_ns]

    def _by_family(self, ridden: RiddenTime, traced: Intervals) -> _Array:
        """int64 ``(phases, families)``: shared time in traced parts of the rides, by the phase of each."""
        kernels, num_families = self._kernels, len(_FAMILIES)
        steps = Intervals.of(ridden.start_ns, ridden.end_ns)
        counted = steps.intersect(traced)
        sums = np.zeros(len(Phase) * num_families)
        if len(counted):
            edges = (ridden.start_ns, ridden.end_ns, counted.start_ns, counted.end_ns)
            cuts = np.unique(np.concatenate(edges))
            phase = ridden.phase[np.searchsorted(ridden.start_ns, cuts[:-1], "right") - 1].astype(np.int64)
            first, last = np.searchsorted(kernels.start_ns, (cuts[0] - self._longest_ns, cuts[-1]))
            rows = first + np.flatnonzero(kernels.device[first:last] == ridden.device)
            family = self._family_of_class[kernels.class_id[rows]]
            is_counted = counted.contains(cuts[:-1])
            for part in share_time(kernels.start_ns[rows], kernels.end_ns[rows], cuts, is_counted):
                cell = phase[part.window] * num_families + family[part.row]
                sums += np.bincount(cell, part.shared_ns, len(sums))
        return sums.astype(np.int64).reshape(len(Phase), num_families)


def _untraced_ns(traced: Intervals, start_ns: _Array, end_ns: _Array) -> _Array:
    """int64, how much of each interval lies outside traced time."""
    untraced: _Array = end_ns - start_ns - BusyTime(traced.start_ns, traced.end_ns).between(start_ns, end_ns)
    return untraced


def _traced_parts(phase: Phase, kernel_ns: _Array, traced_ns: int) -> list[ExplainedPart]:
    name = phase.name.lower()
    kernels = [
        ExplainedPart("kernels", name, _FAMILIES[family], int(kernel_ns[family]))
        for family in np.argsort(-kernel_ns, kind="stable").tolist()
    ]
    return [*kernels, ExplainedPart("idle_in_steps", name, None, traced_ns - int(kernel_ns.sum()))]
