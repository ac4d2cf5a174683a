"""Time, launches and work of a capture's kernels by cell: a kernel class at a place in the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.attributed import AttributedCapture
from qmeter_native.attribution.placed_work import PlacedWork, layers_by_role, step_shapes
from qmeter_native.attribution.shape_work import is_main_kernel
from qmeter_native.attribution.timeline import share_time
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.capture import Capture
from qmeter_native.roofline.kernel_filter import KernelFilter
from qmeter_native.work.kernel_work import KernelWork, StepShapes, kernel_work
from qmeter_native.work.role import Role

__all__ = ["NUM_PLACES", "CellSums"]

_Array = NDArray[Any]

NUM_PLACES: Final = len(Role) + 1
"""Place 0 is where the role is not known; of a role it is its number plus 1."""


@dataclass(frozen=True, slots=True)
class CellSums:
    """Sums by cell, ``class_id * NUM_PLACES + place``.

    Attributes:
        time_ns: One int64 (cells,) a device, time given to the kernels.
        launches: int64 (cells,), those that began in traced time.
        worked: int64 (cells,), of these, launches whose work the work model knows.
        flops: float64 (cells,), operations of these; padding left out.
        least_bytes: float64 (cells,), bytes that they must move.
    """

    time_ns: list[_Array]
    launches: _Array
    worked: _Array
    flops: _Array
    least_bytes: _Array

    @classmethod
    def of(cls, attributed: AttributedCapture, usages: list[DeviceUsage], chosen: KernelFilter) -> CellSums:
        """Add up the chosen kernels of some devices."""
        plan = attributed.plan
        kernels, placed = plan.capture.kernels, plan.placed
        count = len(plan.capture.kernel_classes) * NUM_PLACES
        is_worked = (plan.step_of_kernel >= 0) & (placed.places.role >= 0)
        if len(attributed.is_counted):
            is_worked &= attributed.is_counted[plan.step_of_kernel]
        place = np.where(is_worked, placed.places.role + np.int64(1), 0)
        cell = kernels.class_id.astype(np.int64) * NUM_PLACES + place
        is_chosen = chosen.mask(plan)
        time_ns, launches = [], np.zeros(count, np.int64)
        is_begun = np.zeros(len(kernels), bool)
        for usage in usages:
            is_here = kernels.device == usage.device.index
            time_ns.append(_time(plan.capture, usage, cell, is_here, is_chosen, count))
            is_begun |= is_here & is_chosen & usage.traced.contains(kernels.start_ns)
        launches = np.bincount(cell[is_begun], minlength=count)
        work = _work(plan.capture, placed, plan.step_of_kernel, place - 1, is_begun, count)
        return cls(time_ns, launches, *work)

    @property
    def total_ns(self) -> _Array:
        """int64 (cells,), over all devices."""
        return np.asarray(sum(self.time_ns, np.zeros(len(self.launches), np.int64)))


def _time(capture: Capture, usage: DeviceUsage, cell: _Array, is_here: _Array, is_chosen: _Array, count: int) -> _Array:
    """int64 (cells,): time shared among all kernels of the device, those that are not chosen too."""
    cuts = np.unique(np.concatenate([usage.traced.start_ns, usage.traced.end_ns]))
    sums = np.zeros(count)
    if len(cuts) < 2:
        return sums.astype(np.int64)
    rows = np.flatnonzero(is_here)
    kernels = capture.kernels
    is_counted = usage.traced.contains(cuts[:-1])
    for part in share_time(kernels.start_ns[rows], kernels.end_ns[rows], cuts, is_counted):
        row = rows[part.row]
        sums += np.bincount(cell[row], np.where(is_chosen[row], part.shared_ns, 0), count)
    return sums.astype(np.int64)


def _work(
    capture: Capture, placed: PlacedWork, step_of_kernel: _Array, role: _Array, is_begun: _Array, count: int
) -> tuple[_Array, _Array, _Array]:
    """Launches whose work is known, their operations and their bytes, by cell.

    The work of a role in a step goes to the launches of its main kernel in that step, in equal parts: to all of them,
    of which some may not be chosen.
    """
    worked, flops, least_bytes = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    config, scheme = placed.model.config, placed.model.scheme
    if config is None or scheme is None or len(capture.steps) == 0:
        return worked, flops, least_bytes
    class_id, shapes = capture.kernels.class_id, step_shapes(capture)
    is_main, layers = is_main_kernel(capture.kernel_classes), layers_by_role(placed, config.num_layers)
    for one in Role:
        work = kernel_work(one, config, scheme, shapes, placed.model.tensor_parallel)
        rows = np.flatnonzero(role == one)
        rows = rows[is_main[one, class_id[rows]]]
        if work.least_bytes is None or len(rows) == 0:
            continue
        share = max(layers[one], 1) / np.maximum(np.bincount(step_of_kernel[rows], minlength=len(capture.steps)), 1)
        rows = rows[is_begun[rows]]
        cell, step = class_id[rows].astype(np.int64) * NUM_PLACES + int(one) + 1, step_of_kernel[rows]
        worked += np.bincount(cell, minlength=count)
        flops += np.bincount(cell, (_flops(work, shapes) * share)[step], count)
        least_bytes += np.bincount(cell, (work.least_bytes * share)[step], count)
    return worked, flops, least_bytes


def _flops(work: KernelWork, shapes: StepShapes) -> _Array:
    return np.zeros(len(shapes.num_tokens)) if work.flops is None else work.flops
