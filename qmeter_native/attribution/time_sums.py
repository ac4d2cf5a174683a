"""One pass over a device's kernels: who used its time, by kernel class and by engine step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.column_times import ColumnTimes
from qmeter_native.attribution.energy_classes import EnergyClasses
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.kernel_names import FAMILIES, KernelNames
from qmeter_native.attribution.sensor_view import SensorView
from qmeter_native.attribution.shares import Rides, ShareRule
from qmeter_native.attribution.timeline import SharedTime, share_time
from qmeter_native.attribution.traced_time import Pieces
from qmeter_native.units import NS_PER_S

__all__ = ["DeviceKernels", "TimeSums"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class DeviceKernels:
    """Kernels of one device, sorted by start; one entry each.

    Attributes:
        start_ns, end_ns: int64.
        class_id: Row of `KernelClassTable`.
        step_row: Row of `StepTable`, -1 for none.
        group: Group of `KernelGroups`.
        layer: Layer of the model, -1 for none.
    """

    start_ns: _Array
    end_ns: _Array
    class_id: _Array
    step_row: _Array
    group: _Array
    layer: _Array


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is left of a chunk's parts for sharing their energy: a step and rule, a window and column, nanoseconds."""

    slot: _Array
    cell: _Array
    shared_ns: _Array


class TimeSums:
    """Running sums; step slot 0 is for kernels of no step. Whole nanoseconds in float64, exact up to 104 days."""

    def __init__(
        self,
        names: KernelNames,
        rides: Rides,
        pieces: Pieces,
        columns: ColumnTimes,
        num_traced: int,
        num_groups: int,
        num_layers: int,
        view: SensorView | None = None,
    ) -> None:
        self._names = names
        self._view = view
        self._pieces = pieces
        self._columns = columns
        self._class_rule = names.rule[names.of_class]
        self._class_family = names.family[names.of_class]
        self._prefill = np.concatenate([np.zeros(len(ShareRule)), rides.prefill_fraction().ravel()])
        self._is_ridden = np.concatenate([[False], rides.has_riders])
        self._parts: list[_Parts] = []
        num_classes, num_slots = len(names.of_class), len(self._prefill)
        self._num_classes = num_classes
        self.calls = np.zeros(num_classes, np.int64)
        self._num_groups, self._num_layers = num_groups, num_layers
        self._group_ns = np.zeros(num_groups * num_classes)
        self._layer_ns = np.zeros((num_layers + 1) * columns.classes.count)
        self.overlapped_ns, self.prefill_ns, self.ridden_ns = np.zeros((3, num_classes))
        self._step_ns = np.zeros(num_slots)
        self._family_ns = np.zeros(num_traced * len(FAMILIES))
        self.doubled_ns = 0

    @property
    def classes(self) -> EnergyClasses:
        """The estimator's columns."""
        return self._columns.classes

    @property
    def _is_complete(self) -> bool:
        return bool(self._pieces.is_traced.all())

    @property
    def group_ns(self) -> _Array:
        """int64 ``(groups, classes)``."""
        return self._group_ns.astype(np.int64).reshape(self._num_groups, self._num_classes)

    @property
    def layer_ns(self) -> _Array:
        """int64 ``(layers, columns)``, of kernels that stand in a layer."""
        return self._layer_ns.astype(np.int64).reshape(self._num_layers + 1, self._columns.classes.count)[1:]

    @property
    def step_ns(self) -> _Array:
        """int64 ``(steps, rules)``."""
        return self._step_ns.astype(np.int64).reshape(-1, len(ShareRule))[1:]

    @property
    def window_family_ns(self) -> _Array:
        """int64 ``(traced intervals, families)``."""
        return self._family_ns.astype(np.int64).reshape(-1, len(FAMILIES))

    def add_all(self, kernels: DeviceKernels, traced: Intervals) -> None:
        """Add all kernels of a device."""
        for first, last in np.searchsorted(kernels.start_ns, np.stack([traced.start_ns, traced.end_ns], 1)).tolist():
            self.calls += np.bincount(kernels.class_id[first:last], minlength=self._num_classes)
        is_counted = None if self._is_complete else self._pieces.is_traced
        for part in share_time(kernels.start_ns, kernels.end_ns, self._pieces.cuts_ns, is_counted):
            self._add(part, kernels)
        if self._is_complete and len(self._family_ns):
            self._family_ns += np.bincount(self._class_family, self.group_ns.sum(axis=0), len(FAMILIES))

    def _add(self, part: SharedTime, kernels: DeviceKernels) -> None:
        row, shared = part.row, part.shared_ns.astype(float)
        class_id, step = kernels.class_id[row], kernels.step_row[row].astype(np.int64) + 1
        group = kernels.group[row].astype(np.int64) * self._num_classes + class_id
        slot = step * len(ShareRule) + self._class_rule[class_id]
        self._group_ns += np.bincount(group, shared, len(self._group_ns))
        self._step_ns += np.bincount(slot, shared, len(self._step_ns))
        self.ridden_ns += np.bincount(class_id, shared * self._is_ridden[step], self._num_classes)
        self.prefill_ns += np.bincount(class_id, shared * self._prefill[slot], self._num_classes)
        if part.doubled_ns:
            self.doubled_ns += part.doubled_ns
            self.overlapped_ns += np.bincount(class_id, part.overlapped_ns, self._num_classes)
        if not self._is_complete:
            family = self._pieces.traced_window[part.window] * len(FAMILIES) + self._class_family[class_id]
            self._family_ns += np.bincount(family, shared, len(self._family_ns))
        layer = (kernels.layer[row].astype(np.int64) + 1) * self._columns.classes.count
        self._layer_ns += np.bincount(layer + self._columns.classes.column[class_id], shared, len(self._layer_ns))
        cell = self._columns.cell(self._pieces.energy_window[part.window], class_id)
        launches = part.length_ns / (kernels.end_ns[row] - kernels.start_ns[row])
        self._columns.add(cell, launches, shared)
        if self._view is not None:
            weight = self._weight(part, kernels, self._view)
            self._columns.add_seen(cell, launches * weight, shared * weight)
        whole = self._columns.cell(self._pieces.whole_window[part.window], class_id)
        self._parts.append(_Parts(slot.astype(np.int32), whole.astype(np.int32), part.shared_ns))

    def _weight(self, part: SharedTime, kernels: DeviceKernels, view: SensorView) -> _Array:
        """float64, how the sensor weighs each part's time: its kernel's mean in the piece."""
        cuts_ns = self._pieces.cuts_ns
        start_ns = np.maximum(kernels.start_ns[part.row], cuts_ns[part.window])
        end_ns = np.minimum(kernels.end_ns[part.row], cuts_ns[part.window + 1])
        seen_ns, length_ns = view.seen_ns(end_ns) - view.seen_ns(start_ns), end_ns - start_ns
        weight: _Array = np.divide(seen_ns, length_ns, out=np.ones(len(seen_ns)), where=length_ns > 0)
        return weight

    def step_j(self, kernel_w: _Array) -> _Array:
        """float64 ``(steps, rules)``: energy of steps whose kernels draw ``kernel_w`` (windows, columns) watts."""
        power = kernel_w.ravel() / NS_PER_S
        total = np.zeros(len(self._step_ns))
        for part in self._parts:
            total += np.bincount(part.slot, power[part.cell] * part.shared_ns, len(total))
        return total.reshape(-1, len(ShareRule))[1:]
