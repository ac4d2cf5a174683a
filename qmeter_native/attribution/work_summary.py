"""What the kernels of a run had to do beside what they took: the work model applied to a capture.

Rows cover the steps that count (`qmeter_native.attribution.steps.traced_steps`) and whose kernels could be placed, so
that operations and time belong together. Shares cover all busy time, the meter's markers left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_pool import EnergyPool
from qmeter_native.attribution.energy_use import Joules
from qmeter_native.attribution.implementation_rules import implementation
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.layers import KernelPlaces
from qmeter_native.attribution.placed_work import CUT, FIRST_ROLE, UNPLACED, PlacedWork, layers_by_role, step_shapes
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.capture import Capture
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.work import LayerRow, WorkRow, WorkSummary
from qmeter_native.units import ns_to_s
from qmeter_native.work.kernel_work import StepShapes, kernel_work
from qmeter_native.work.model_config import ModelConfig
from qmeter_native.work.role import FAMILY_OF_ROLE, Role
from qmeter_native.work.scheme import Scheme, WeightLayout

__all__ = ["work_summary"]

_Array = NDArray[Any]


def work_summary(
    capture: Capture, names: KernelNames, usages: Sequence[DeviceUsage], placed: PlacedWork, pool: EnergyPool
) -> WorkSummary:
    """The work model's answer for a capture whose kernels are placed and whose devices' time is shared out."""
    model, places = placed.model, placed.places
    group_ns = sum(
        (usage.group_name_ns for usage in usages), np.zeros((placed.groups.count, len(names.names)), np.int64)
    )
    work_ns = group_ns[:, ~names.is_meter]
    busy_ns = int(work_ns.sum())
    shapes = step_shapes(capture)
    energies = _energies(pool, pool.joules(lambda use: use.group_ns), placed.groups.count)
    rows = () if model.config is None else _rows(placed, model.config, names, group_ns, energies, busy_ns, shapes)
    is_other = np.array([family is OpFamily.OTHER for family in names.families], bool)

    def share(time_ns: _Array) -> float | None:
        return int(time_ns.sum()) / busy_ns if busy_ns else None

    return WorkSummary(
        rows=rows,
        family_known=share(group_ns[:, ~(is_other | names.is_meter)]),
        step_known=share(work_ns[UNPLACED:]),
        layer_known=share(work_ns[CUT:]),
        padding_share=_padding_share(capture, shapes, placed.is_counted),
        reason=None if rows else _reason(placed),
        notes=(*model.notes, *_unplaced(places)) if rows else (),
        layers=_layers(usages, pool) if rows else (),
    )


def _energies(pool: EnergyPool, joules: Joules | None, count: int) -> list[Estimate]:
    if joules is None:
        return [pool.estimate(0.0, 0.0)] * count
    return [pool.estimate(*both) for both in zip(joules.energy_j.tolist(), joules.energy_error_j.tolist(), strict=True)]


def _layers(usages: Sequence[DeviceUsage], pool: EnergyPool) -> tuple[LayerRow, ...]:
    """All kernels of each layer, helpers included, in steps that count or not."""
    layer_ns = sum((usage.layer_ns for usage in usages), np.zeros(len(usages[0].layer_ns), np.int64))
    energies = _energies(pool, pool.joules(lambda use: use.layer_ns), len(layer_ns))
    return tuple(
        LayerRow(layer, ns_to_s(time_ns), energy)
        for layer, (time_ns, energy) in enumerate(zip(layer_ns.tolist(), energies, strict=True))
    )


def _rows(
    placed: PlacedWork,
    config: ModelConfig,
    names: KernelNames,
    group_ns: _Array,
    energies: Sequence[Estimate],
    busy_ns: int,
    shapes: StepShapes,
) -> tuple[WorkRow, ...]:
    """One row a role that ran in steps that count, most time first."""
    calls = np.bincount(placed.groups.group, minlength=placed.groups.count)[FIRST_ROLE:]
    role_ns = group_ns[FIRST_ROLE:]
    num_layers = layers_by_role(placed, config.num_layers)
    ranked = sorted((role for role in Role if calls[role]), key=lambda role: -int(role_ns[role].sum()))
    return tuple(
        _row(
            role,
            placed,
            config,
            names,
            role_ns[role],
            energies[FIRST_ROLE + role],
            busy_ns,
            shapes,
            int(calls[role]),
            num_layers[role],
        )
        for role in ranked
    )


def _row(
    role: Role,
    placed: PlacedWork,
    config: ModelConfig,
    names: KernelNames,
    name_ns: _Array,
    energy: Estimate,
    busy_ns: int,
    shapes: StepShapes,
    calls: int,
    num_layers: int,
) -> WorkRow:
    model = placed.model
    work = kernel_work(role, config, model.scheme or Scheme(WeightLayout(16)), shapes, model.tensor_parallel)
    counted, times = placed.is_counted & placed.places.is_placed, max(num_layers, 1)
    time_ns, flops = int(name_ns.sum()), _total(work.flops, counted, times)
    least_bytes = None if model.scheme is None else _total(work.least_bytes, counted, times)

    def per_second(amount: int | None) -> float | None:
        return amount / ns_to_s(time_ns) if amount is not None and time_ns else None

    return WorkRow(
        role=role.name.lower(),
        op_family=FAMILY_OF_ROLE[role],
        implementation=_main_implementation(names, name_ns),
        num_layers=num_layers,
        calls=calls,
        time_s=ns_to_s(time_ns),
        time_share=time_ns / busy_ns if busy_ns else 0.0,
        flops=flops,
        least_bytes=least_bytes,
        padding_flops=_total(work.padding_flops, counted, times) or 0,
        flops_per_s=per_second(flops),
        bytes_per_s=per_second(least_bytes),
        energy_j=energy,
    )


def _total(values: _Array | None, counted: _Array, times: int) -> int | None:
    """Sum over the steps that count, and layers: in Python's integers, as 10^5 prefills of 32 layers overflow int64."""
    return None if values is None else int(values[counted].sum()) * times


def _main_implementation(names: KernelNames, name_ns: _Array) -> str | None:
    """Who wrote the kernels that took most of a role's time."""
    by_author: dict[str | None, float] = {}
    for index in np.flatnonzero(name_ns).tolist():
        author = implementation(names.names[index])
        by_author[author] = by_author.get(author, 0.0) + float(name_ns[index])
    return max(by_author, key=lambda author: by_author[author]) if by_author else None


def _padding_share(capture: Capture, shapes: StepShapes, is_counted: _Array) -> float | None:
    says = is_counted & (capture.steps.num_padded >= 0)
    places = int(shapes.num_tokens[says].sum() + shapes.num_padding[says].sum())
    return int(shapes.num_padding[says].sum()) / places if places else None


def _reason(placed: PlacedWork) -> str:
    if placed.model.reason is not None:
        return placed.model.reason
    if not len(placed.is_counted):
        return "no engine steps were recorded"
    why = next(iter(placed.places.reasons), "it lies outside the time that was traced")
    return f"no step could be placed; of the most, {why}"


def _unplaced(places: KernelPlaces) -> list[str]:
    """A sentence for each reason why steps were not placed."""
    return [f"{count} steps are not placed: {reason}." for reason, count in places.reasons.items()]
