"""One pass over a device's kernels: who used its time and energy, by kernel name and by engine step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.classify import op_family
from qmeter_native.attribution.energy import EnergySplit, split_energy
from qmeter_native.attribution.energy_windows import EnergyWindows, energy_windows
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.shares import RULE_OF_FAMILY, Rides, ShareRule
from qmeter_native.attribution.steps import StepSpans
from qmeter_native.attribution.timeline import BusyTime, SharedTime, share_time
from qmeter_native.attribution.traced_time import Pieces
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.tables import KernelClassTable
from qmeter_native.units import NS_PER_S

__all__ = ["DeviceUsage", "KernelGroups", "KernelNames", "device_usage"]

_Array = NDArray[Any]

_FAMILIES: Final = tuple(OpFamily)


@dataclass(frozen=True, slots=True)
class KernelNames:
    """The distinct kernel names of a capture.

    Attributes:
        names: str, sorted.
        of_class: int64, index into ``names`` of each kernel class.
        families: Family of each name.
        rule: int64, `ShareRule` of each name.
        family: int64, position of each name's family in `OpFamily`.
    """

    names: list[str]
    of_class: _Array
    families: list[OpFamily]
    rule: _Array
    family: _Array

    @classmethod
    def of(cls, classes: KernelClassTable) -> KernelNames:
        """Names of all classes."""
        names = sorted(set(classes.name.tolist()))
        number = {name: index for index, name in enumerate(names)}
        families = [op_family(name) for name in names]
        return cls(
            names=names,
            of_class=np.array([number[name] for name in classes.name.tolist()], np.int64),
            families=families,
            rule=np.array([RULE_OF_FAMILY[family] for family in families], np.int64),
            family=np.array([_FAMILIES.index(family) for family in families], np.int64),
        )

    @property
    def is_meter(self) -> _Array:
        """Mask of the names that are qmeter-native's own."""
        return np.array([family is OpFamily.METER for family in self.families], bool)


@dataclass(frozen=True, slots=True)
class KernelGroups:
    """Kernels sorted into groups whose time is wanted.

    Attributes:
        group: int8, group of each row of `KernelTable`.
        count: Number of groups.
    """

    group: _Array
    count: int


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """What ran on one device inside the measured window, as far as it was traced.

    Attributes:
        device: The device.
        traced: The time in which kernels were recorded; all that follows is of this time.
        windows: What its energy sensor saw.
        split: That, split; None without a source.
        busy_ns, busy_in_steps_ns: Union of all kernels, and the part of it inside the device's steps.
        steps_ns: Union of the device's steps.
        doubled_ns: Time in which two or more kernels ran.
        calls: int64, launches by name that started inside the window.
        name_ns, name_overlapped_ns: int64, time by name; own running time in which others ran too.
        group_name_ns: int64 ``(groups, names)``, time by group and name.
        name_prefill_ns, name_ridden_ns: float64, time by name that prefills caused, and that any request caused.
        name_j, name_static_j: float64, energy by name, and the part of it that is idle power.
        step_ns, step_j: int64 and float64 ``(steps, rules)``, time and energy by step and rule of sharing.
        window_family_ns: int64 ``(traced intervals, families)``, time by family in each traced interval.
        window_busy_ns: int64, union of all kernels in each traced interval.
    """

    device: DeviceInfo
    traced: Intervals
    windows: EnergyWindows
    split: EnergySplit | None
    busy_ns: int
    busy_in_steps_ns: int
    steps_ns: int
    doubled_ns: int
    calls: _Array
    name_ns: _Array
    name_overlapped_ns: _Array
    group_name_ns: _Array
    name_prefill_ns: _Array
    name_ridden_ns: _Array
    name_j: _Array
    name_static_j: _Array
    step_ns: _Array
    step_j: _Array
    window_family_ns: _Array
    window_busy_ns: _Array

    @property
    def wall_ns(self) -> int:
        """Length of the measured window."""
        return int(self.windows.cuts_ns[-1] - self.windows.cuts_ns[0])

    @property
    def is_complete(self) -> bool:
        """All of the measured window was traced."""
        return self.traced.total_ns == self.wall_ns


def device_usage(
    capture: Capture,
    device: DeviceInfo,
    names: KernelNames,
    spans: StepSpans,
    step_of_kernel: _Array,
    rides: Rides,
    groups: KernelGroups,
    traced: Intervals,
) -> DeviceUsage:
    """Share a device's time and energy among what ran on it.

    ``step_of_kernel`` is that of `kernel_steps`, ``traced`` that of `traced_time`.
    """
    kernels = capture.kernels
    is_here = kernels.device == device.index
    here = slice(None) if is_here.all() else np.flatnonzero(is_here)
    start_ns, end_ns = kernels.start_ns[here], kernels.end_ns[here]
    windows = energy_windows(capture, device)
    pieces = Pieces.of(windows.cuts_ns, traced)
    steps = spans.on_device(capture, device.index).intersect(traced)
    busy_by_piece, busy_in_steps_ns, window_busy_ns = _busy_times(start_ns, end_ns, pieces, steps, traced)
    num_windows = len(windows.cuts_ns) - 1
    busy_by_window = pieces.by_energy_window(busy_by_piece, num_windows)
    traced_by_window = pieces.by_energy_window(pieces.length_ns, num_windows)
    split = split_energy(windows, busy_by_window, traced_by_window, device.idle_power_w)
    sums = _Sums(names, rides, split, pieces, len(traced), groups.count)
    sums.add_all(start_ns, end_ns, kernels.class_id[here], step_of_kernel[here], groups.group[here], traced)
    group_name_ns = _whole(sums.group_name_ns).reshape(groups.count, len(names.names))
    return DeviceUsage(
        device=device,
        traced=traced,
        windows=windows,
        split=split,
        busy_ns=int(busy_by_piece.sum()),
        busy_in_steps_ns=int(busy_in_steps_ns.sum()),
        steps_ns=steps.total_ns,
        doubled_ns=sums.doubled_ns,
        calls=sums.calls,
        name_ns=group_name_ns.sum(axis=0),
        name_overlapped_ns=_whole(sums.name_overlapped_ns),
        group_name_ns=group_name_ns,
        name_prefill_ns=sums.name_prefill_ns,
        name_ridden_ns=sums.name_ridden_ns,
        name_j=sums.name_j,
        name_static_j=sums.name_static_j,
        step_ns=_whole(sums.step_ns).reshape(-1, len(ShareRule))[1:],
        step_j=sums.step_j.reshape(-1, len(ShareRule))[1:],
        window_family_ns=_whole(sums.window_family_ns).reshape(-1, len(_FAMILIES)),
        window_busy_ns=window_busy_ns,
    )


def _busy_times(
    start_ns: _Array, end_ns: _Array, pieces: Pieces, steps: Intervals, traced: Intervals
) -> tuple[_Array, _Array, _Array]:
    """Busy time of each piece, 0 where it is not traced, of each step and of each traced interval.

    The union that they come from is a quarter of all memory at 10^7 kernels, and is let go here.
    """
    busy = BusyTime(start_ns, end_ns)
    by_piece = np.where(pieces.is_traced, busy.between(pieces.cuts_ns[:-1], pieces.cuts_ns[1:]), 0)
    return by_piece, busy.between(steps.start_ns, steps.end_ns), busy.between(traced.start_ns, traced.end_ns)


def _whole(sums: _Array) -> _Array:
    """Sums of whole nanoseconds, kept in float64, which is exact up to 2^53 ns or 104 days."""
    return sums.astype(np.int64)


class _Sums:
    """Running sums by name and by step; step slot 0 is for kernels of no step."""

    def __init__(
        self,
        names: KernelNames,
        rides: Rides,
        split: EnergySplit | None,
        pieces: Pieces,
        num_traced: int,
        num_groups: int,
    ) -> None:
        self._names = names
        self._num_groups = num_groups
        self._pieces = pieces
        self._busy_w = None if split is None else split.busy_w[pieces.energy_window]
        self._static_w = None if split is None or split.static_w is None else split.static_w[pieces.energy_window]
        self._prefill = np.concatenate([np.zeros(len(ShareRule)), rides.prefill_fraction().ravel()])
        self._is_ridden = np.concatenate([[False], rides.has_riders])
        num_names, num_slots = len(names.names), len(self._prefill)
        self.calls = np.zeros(num_names, np.int64)
        self.group_name_ns, self.name_overlapped_ns = np.zeros(num_groups * num_names), np.zeros(num_names)
        self.name_prefill_ns, self.name_ridden_ns = np.zeros(num_names), np.zeros(num_names)
        self.name_j, self.name_static_j = np.zeros(num_names), np.zeros(num_names)
        self.step_ns, self.step_j = np.zeros(num_slots), np.zeros(num_slots)
        self.window_family_ns = np.zeros(num_traced * len(_FAMILIES))
        self.doubled_ns = 0

    @property
    def _is_complete(self) -> bool:
        return bool(self._pieces.is_traced.all())

    def add_all(
        self,
        start_ns: _Array,
        end_ns: _Array,
        class_id: _Array,
        step_row: _Array,
        group: _Array,
        traced: Intervals,
    ) -> None:
        """Add all kernels of a device, sorted by start."""
        num_classes = len(self._names.of_class)
        for first, last in np.searchsorted(start_ns, np.stack([traced.start_ns, traced.end_ns], axis=1)).tolist():
            np.add.at(self.calls, self._names.of_class, np.bincount(class_id[first:last], minlength=num_classes))
        is_counted = None if self._is_complete else self._pieces.is_traced
        for part in share_time(start_ns, end_ns, self._pieces.cuts_ns, is_counted):
            self.doubled_ns += part.doubled_ns
            name = self._names.of_class[class_id[part.row]]
            cell = group[part.row].astype(np.int64) * len(self.calls) + name
            self.group_name_ns += np.bincount(cell, part.shared_ns, len(self.group_name_ns))
            self._add(part, name, step_row[part.row].astype(np.int64) + 1)
        if self._is_complete and len(traced):
            name_ns = self.group_name_ns.reshape(self._num_groups, len(self.calls)).sum(axis=0)
            self.window_family_ns += np.bincount(self._names.family, name_ns, len(_FAMILIES))

    def _add(self, part: SharedTime, name: _Array, step: _Array) -> None:
        num_names, num_slots = len(self.calls), len(self.step_ns)
        slot = step * len(ShareRule) + self._names.rule[name]
        shared = part.shared_ns.astype(float)
        self.step_ns += np.bincount(slot, shared, num_slots)
        self.name_ridden_ns += np.bincount(name, shared * self._is_ridden[step], num_names)
        self.name_prefill_ns += np.bincount(name, shared * self._prefill[slot], num_names)
        if not self._is_complete:
            cell = self._pieces.traced_window[part.window] * len(_FAMILIES) + self._names.family[name]
            self.window_family_ns += np.bincount(cell, shared, len(self.window_family_ns))
        if part.doubled_ns:
            self.name_overlapped_ns += np.bincount(name, part.overlapped_ns, num_names)
        if self._busy_w is not None:
            shared /= NS_PER_S
            joules = shared * self._busy_w[part.window]
            self.name_j += np.bincount(name, joules, num_names)
            self.step_j += np.bincount(slot, joules, num_slots)
        if self._static_w is not None:
            self.name_static_j += np.bincount(name, shared * self._static_w[part.window], num_names)
