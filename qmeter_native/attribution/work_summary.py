"""What the kernels of a run had to do beside what they took: the work model applied to a capture.

Rows cover the steps that count (`qmeter_native.attribution.steps.traced_steps`) and whose kernels could be placed, so
that operations and time belong together. Shares cover all busy time, the meter's markers left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.implementation_rules import implementation
from qmeter_native.attribution.layers import KernelPlaces, kernel_places
from qmeter_native.attribution.shares import step_rows
from qmeter_native.attribution.usage import DeviceUsage, KernelGroups, KernelNames
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.work import WorkRow, WorkSummary
from qmeter_native.units import ns_to_s
from qmeter_native.work.kernel_work import StepShapes, kernel_work
from qmeter_native.work.model_config import ModelConfig, read_model_config
from qmeter_native.work.role import FAMILY_OF_ROLE, Role
from qmeter_native.work.scheme import Scheme, WeightLayout, read_scheme

__all__ = ["PlacedWork", "work_summary"]

_Array = NDArray[Any]

_NO_STEP, _UNPLACED, _CUT, _FIRST_ROLE = 0, 1, 2, 3
"""Groups of kernels: outside steps; in a step without places; placed, in a step that does not count; then by role."""


@dataclass(frozen=True, slots=True)
class PlacedWork:
    """The kernels of a capture in their places, grouped by role, before their time is known.

    Attributes:
        model: What the engine says about its model.
        places: Where each kernel stands.
        is_counted: Mask of the steps that count.
        groups: Group of each kernel.
    """

    model: _Model
    places: KernelPlaces
    is_counted: _Array
    groups: KernelGroups

    @classmethod
    def of(cls, capture: Capture, step_of_kernel: _Array, is_counted: _Array) -> PlacedWork:
        """Place the kernels.

        Args:
            capture: The capture.
            step_of_kernel: That of `kernel_steps`.
            is_counted: Mask of the steps that count, that of `traced_steps`.
        """
        model = _Model.of(capture.manifest.engine)
        places = kernel_places(capture, step_of_kernel, 0 if model.config is None else model.config.num_layers)
        is_placed = places.role >= 0
        group = np.where(step_of_kernel >= 0, np.int8(_UNPLACED), np.int8(_NO_STEP))
        group[is_placed] = places.role[is_placed] + np.int8(_FIRST_ROLE)
        if len(is_counted):
            group[is_placed & ~is_counted[step_of_kernel]] = _CUT
        return cls(model, places, is_counted, KernelGroups(group, _FIRST_ROLE + len(Role)))


@dataclass(frozen=True, slots=True)
class _Model:
    """What the engine says about its model: sizes and formats, or why they are not known."""

    config: ModelConfig | None
    scheme: Scheme | None
    tensor_parallel: int
    reason: str | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, engine: EngineInfo | None) -> _Model:
        effective: Mapping[str, Any] = {} if engine is None else engine.effective
        fields = effective.get("hf_config") or effective.get("architecture") or {}
        config, reason = read_model_config(fields)
        if config is not None and config.is_mixture:
            config, reason = None, "the work model does not place the kernels of a mixture of experts"
        quantization = effective.get("quantization_config") or fields.get("quantization_config")
        dtype = effective.get("dtype") or fields.get("dtype") or fields.get("torch_dtype")
        scheme, unknown = read_scheme(
            effective.get("quantization"), quantization, dtype, effective.get("kv_cache_dtype")
        )
        notes = () if unknown is None else (f"Least bytes are missing: {unknown}.",)
        return cls(config, scheme, int(effective.get("tensor_parallel") or 1), reason, notes)


def work_summary(
    capture: Capture, names: KernelNames, usages: Sequence[DeviceUsage], placed: PlacedWork
) -> WorkSummary:
    """The work model's answer for a capture whose kernels are placed and whose devices' time is shared out."""
    model, places = placed.model, placed.places
    group_ns = sum(
        (usage.group_name_ns for usage in usages), np.zeros((placed.groups.count, len(names.names)), np.int64)
    )
    work_ns = group_ns[:, ~names.is_meter]
    busy_ns = int(work_ns.sum())
    shapes = _shapes(capture)
    rows = () if model.config is None else _rows(placed, model.config, names, group_ns, busy_ns, shapes)
    is_other = np.array([family is OpFamily.OTHER for family in names.families], bool)

    def share(time_ns: _Array) -> float | None:
        return int(time_ns.sum()) / busy_ns if busy_ns else None

    return WorkSummary(
        rows=rows,
        family_known=share(group_ns[:, ~(is_other | names.is_meter)]),
        step_known=share(work_ns[_UNPLACED:]),
        layer_known=share(work_ns[_CUT:]),
        padding_share=_padding_share(capture, shapes, placed.is_counted),
        reason=None if rows else _reason(placed),
        notes=(*model.notes, *_unplaced(places)) if rows else (),
    )


def _shapes(capture: Capture) -> StepShapes:
    """A step samples at each draft of a sequence too, to tell whether it is accepted."""
    rides = capture.step_requests
    row = step_rows(capture.steps, rides)
    num_sampled = np.where(rides.num_sampled > 0, rides.num_sampled + rides.num_draft, 0)
    return StepShapes.of(capture.steps.num_padded, row, rides.num_scheduled, rides.context_len, num_sampled)


def _rows(
    placed: PlacedWork, config: ModelConfig, names: KernelNames, group_ns: _Array, busy_ns: int, shapes: StepShapes
) -> tuple[WorkRow, ...]:
    """One row a role that ran in steps that count, most time first."""
    calls = np.bincount(placed.groups.group, minlength=placed.groups.count)[_FIRST_ROLE:]
    role_ns = group_ns[_FIRST_ROLE:]
    num_layers = _layers_by_role(placed, config.num_layers)
    ranked = sorted((role for role in Role if calls[role]), key=lambda role: -int(role_ns[role].sum()))
    return tuple(
        _row(role, placed, config, names, role_ns[role], busy_ns, shapes, int(calls[role]), num_layers[role])
        for role in ranked
    )


def _row(
    role: Role,
    placed: PlacedWork,
    config: ModelConfig,
    names: KernelNames,
    name_ns: _Array,
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
    )


def _layers_by_role(placed: PlacedWork, num_layers: int) -> dict[Role, int]:
    """In how many layers each role occurs."""
    group, layer = placed.groups.group, placed.places.layer
    cell = group.astype(np.int32) * (num_layers + 1) + (layer + np.int16(1))
    found = np.bincount(cell, minlength=placed.groups.count * (num_layers + 1)).reshape(-1, num_layers + 1) > 0
    return {role: int(found[_FIRST_ROLE + role, 1:].sum()) for role in Role}


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
