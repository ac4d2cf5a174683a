"""Kernels of a capture as points: what each did at each place in the model, by counters or by the work model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.attributed import AttributedCapture
from qmeter_native.attribution.classify import scheme
from qmeter_native.attribution.display_name import display_name
from qmeter_native.attribution.energy_use import EnergyUse, Joules
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.errors import UsageError
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.op_family import OpFamily
from qmeter_native.roofline.cell_sums import NUM_PLACES, CellSums
from qmeter_native.roofline.counted_work import CountedSum, CountedWork
from qmeter_native.roofline.kernel_filter import KernelFilter
from qmeter_native.roofline.operands import Operands
from qmeter_native.roofline.point import Demand, KernelRun
from qmeter_native.units import ns_to_s
from qmeter_native.work.role import FAMILY_OF_ROLE, Role

__all__ = ["Grouping", "capture_runs"]

_Array = NDArray[Any]

Grouping = Literal["kernel", "role"]
"""A point is a kernel's name at a place, or all kernels of a place."""

_MIN_KNOWN: Final = 0.9
"""Part of a point's launches (its main kernels' of a role) whose work is known, from which the point's is."""
_NO_PLACE: Final = "it stands in no place that the work model knows"
_HELPER: Final = "it helps its role: the work model gives the role's work to its main kernel"
_NOT_MODELLED: Final = "the work model does not say what this place has to move"


@dataclass(frozen=True, slots=True)
class _Group:
    """The cells of a point."""

    name: int | None
    place: int
    cells: _Array


def capture_runs(
    attributed: AttributedCapture, usages: list[DeviceUsage], chosen: KernelFilter, by: Grouping = "kernel"
) -> tuple[KernelRun, ...]:
    """The chosen kernels of some devices of one kind, most time first; their times add up to the chosen busy time.

    Args:
        attributed: The capture.
        usages: Its devices that count.
        chosen: Which kernels.
        by: What is one point.

    Raises:
        UsageError: No kernel is left.
    """
    sums = CellSums.of(attributed, usages, chosen)
    total_ns = sums.total_ns
    if not total_ns.any():
        raise UsageError("no kernel of the capture is left", "Leave out --phase, --role or --layer, or choose another.")
    groups = sorted(_groups(attributed, total_ns, by), key=lambda group: -int(total_ns[group.cells].sum()))
    counted = [CountedWork.of(attributed.plan.capture, usage.device) for usage in usages]
    operands = Operands.of(attributed.plan)
    joules = _joules(attributed, usages, sums, groups)
    busy_ns = int(total_ns.sum())
    return tuple(
        _run(attributed, sums, group, busy_ns, _demand(sums, group, counted, operands), joules, row)
        for row, group in enumerate(groups)
    )


def _groups(attributed: AttributedCapture, total_ns: _Array, by: Grouping) -> list[_Group]:
    cells = np.flatnonzero(total_ns)
    place = cells % NUM_PLACES
    name = attributed.plan.names.of_class[cells // NUM_PLACES] if by == "kernel" else np.zeros_like(place)
    key = name * NUM_PLACES + place
    return [
        _Group(one // NUM_PLACES if by == "kernel" else None, one % NUM_PLACES, cells[key == one])
        for one in np.unique(key).tolist()
    ]


def _run(
    attributed: AttributedCapture,
    sums: CellSums,
    group: _Group,
    busy_ns: int,
    demand: Demand | str,
    joules: Joules | None,
    row: int,
) -> KernelRun:
    names, classes, pool = attributed.plan.names, attributed.plan.capture.kernel_classes, attributed.pool
    role = Role(group.place - 1) if group.place else None
    time_ns = sums.total_ns[group.cells]
    main = int(group.cells[int(time_ns.argmax())] // NUM_PLACES)
    grid = int(classes.grid_x[main]) * int(classes.grid_y[main]) * int(classes.grid_z[main])
    place_name = "no known place" if role is None else role.name.lower()
    name = place_name if group.name is None else names.names[group.name]
    family = FAMILY_OF_ROLE[role] if role is not None else OpFamily.OTHER
    return KernelRun(
        name=name,
        label=name if group.name is None else display_name(name),
        role=None if role is None else place_name,
        op_family=family if group.name is None else names.families[group.name],
        scheme=None if group.name is None else scheme(name),
        launches=int(sums.launches[group.cells].sum()),
        blocks=grid if grid and group.name is not None else None,
        time_s=Estimate(ns_to_s(int(time_ns.sum()))),
        time_share=int(time_ns.sum()) / busy_ns,
        demand=demand if isinstance(demand, Demand) else None,
        unknown=demand if isinstance(demand, str) else None,
        energy_j=_figure(attributed, joules, "dynamic_j", row),
        static_j=_figure(attributed, joules, "static_j", row),
        is_resolved=None if joules is None or pool.is_declared else _is_resolved(joules, row),
    )


def _demand(sums: CellSums, group: _Group, counted: list[CountedWork | None], operands: Operands) -> Demand | str:
    """What a point asked of the machine, or why that is not known."""
    cells, role = group.cells, Role(group.place - 1) if group.place else None
    launches, worked = int(sums.launches[cells].sum()), int(sums.worked[cells].sum())
    is_modelled = worked > 0 and (group.name is None or worked >= _MIN_KNOWN * launches)
    modelled_flops, least = float(sums.flops[cells].sum()), float(sums.least_bytes[cells].sum())
    operand = operands.of_role(role) if role is not None else None
    by_counters = _counted(sums, cells, counted)
    if by_counters is not None:
        flops, kind = (modelled_flops, operand) if is_modelled and modelled_flops else by_counters.flops
        return Demand(
            flops=flops,
            operand=kind if flops else None,
            dram_bytes=by_counters.dram_bytes,
            source="counters",
            write_share=by_counters.write_share,
            l2_bytes=by_counters.l2_bytes,
            least_bytes=least if is_modelled else None,
        )
    if not is_modelled or not least:
        return _NO_PLACE if role is None else _NOT_MODELLED if group.name is None or worked else _HELPER
    return Demand(modelled_flops, operand if modelled_flops else None, least, "work model", least_bytes=least)


def _counted(sums: CellSums, cells: _Array, counted: list[CountedWork | None]) -> CountedSum | None:
    """Counted work of a point; None where counters do not know (nearly) all of its launches.

    Launches of several devices are alike: those of a class did what its launches on the first device with counters did.
    """
    work = next((one for one in counted if one is not None), None)
    return None if work is None else work.total(cells // NUM_PLACES, sums.launches[cells], _MIN_KNOWN)


def _joules(
    attributed: AttributedCapture, usages: list[DeviceUsage], sums: CellSums, groups: list[_Group]
) -> Joules | None:
    """Energy of each group; None where the capture has none."""
    if attributed.pool.missing is not None:
        return None
    parts = [
        _device_joules(usage.energy, time_ns, groups)
        for usage, time_ns in zip(usages, sums.time_ns, strict=True)
        if usage.energy is not None
    ]
    return reduce(add, parts) if parts else None


def _device_joules(use: EnergyUse, time_ns: _Array, groups: list[_Group]) -> Joules:
    count = len(use.column_ns)
    by_column = [np.bincount(use.column[group.cells // NUM_PLACES], time_ns[group.cells], count) for group in groups]
    return use.joules(np.stack(by_column))


def _figure(attributed: AttributedCapture, joules: Joules | None, name: str, row: int) -> Estimate:
    pool = attributed.pool
    if joules is None:
        return pool.estimate(0.0, 0.0) if pool.missing is not None else Estimate.missing("it has no energy source")
    error = getattr(joules, name.replace("_j", "_error_j"))
    return pool.estimate(float(getattr(joules, name)[row]), float(error[row]), pool.dynamic_method)


def _is_resolved(joules: Joules, row: int) -> bool | None:
    dynamic_j = float(joules.dynamic_j[row])
    return bool(joules.resolved_j[row] > dynamic_j / 2) if dynamic_j > 0 else None
