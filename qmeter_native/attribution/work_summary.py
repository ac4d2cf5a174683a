"""What the kernels of a run had to do beside what they took: the work model applied to a capture.

Rows cover the steps that count (`qmeter_native.attribution.steps.traced_steps`) and whose kernels could be placed, so
that operations and time belong together. Shares cover all busy time, the meter's markers left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.implementation_rules import implementation
from qmeter_native.attribution.layers import KernelPlaces, kernel_places
from qmeter_native.attribution.shares import step_rows
from qmeter_native.attribution.timeline import share_time
from qmeter_native.attribution.usage import DeviceUsage, KernelNames
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.work import WorkRow, WorkSummary
from qmeter_native.units import ns_to_s
from qmeter_native.work.kernel_work import StepShapes, kernel_work
from qmeter_native.work.model_config import ModelConfig, read_model_config
from qmeter_native.work.role import FAMILY_OF_ROLE, Role
from qmeter_native.work.scheme import Scheme, WeightFormat, read_scheme

__all__ = ["work_summary"]

_Array = NDArray[Any]

_NO_STEP, _UNPLACED, _CUT, _FIRST_ROLE = 0, 1, 2, 3
"""Slots of time: outside steps; in a step without places; placed, in a step that does not count; then by role."""
_NUM_SLOTS: Final = _FIRST_ROLE + len(Role)


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
        fields = effective.get("hf_config") or effective.get("architecture")
        config, reason = read_model_config(fields)
        if config is not None and config.is_mixture:
            config, reason = None, "the work model does not place the kernels of a mixture of experts"
        quantization = effective.get("quantization_config") or (fields or {}).get("quantization_config")
        dtype = effective.get("dtype") or (fields or {}).get("torch_dtype")
        scheme, unknown = read_scheme(
            effective.get("quantization"), quantization, dtype, effective.get("kv_cache_dtype")
        )
        notes = () if unknown is None else (f"Least bytes are missing: {unknown}.",)
        return cls(config, scheme, int(effective.get("tensor_parallel") or 1), reason, notes)


def work_summary(
    capture: Capture,
    names: KernelNames,
    usages: Sequence[DeviceUsage],
    step_of_kernel: _Array,
    is_counted: _Array,
) -> WorkSummary:
    """The work model's answer for a capture.

    Args:
        capture: The capture.
        names: Its kernel names.
        usages: Its devices' use.
        step_of_kernel: That of `kernel_steps`.
        is_counted: Mask of the steps that count, that of `traced_steps`.
    """
    model = _Model.of(capture.manifest.engine)
    places = kernel_places(capture, step_of_kernel, 0 if model.config is None else model.config.num_layers)
    slot = _slots(places, step_of_kernel, is_counted)
    slot_ns = sum((_slot_ns(capture, names, usage, slot) for usage in usages), np.zeros((_NUM_SLOTS, len(names.names))))
    shapes = _shapes(capture)
    counted = is_counted & places.is_placed
    rows = () if model.config is None else _rows(model, model.config, names, places, slot, slot_ns, shapes, counted)
    work_ns = slot_ns[:, ~names.is_meter]
    total = float(work_ns.sum()) or 1.0
    is_known = np.array([family is not OpFamily.OTHER for family in names.families], bool)
    return WorkSummary(
        rows=rows,
        family_known=float(slot_ns[:, is_known & ~names.is_meter].sum()) / total,
        step_known=float(work_ns[_UNPLACED:].sum()) / total,
        layer_known=float(work_ns[_CUT:].sum()) / total,
        padding_share=_padding_share(capture, shapes, is_counted),
        reason=None if rows else _reason(model, places),
        notes=(*model.notes, *_unplaced(places)) if rows else (),
    )


def _slots(places: KernelPlaces, step_of_kernel: _Array, is_counted: _Array) -> _Array:
    """Slot of each kernel, int8."""
    in_step, is_placed = step_of_kernel >= 0, places.role >= 0
    slot = np.where(is_placed, places.role + np.int8(_FIRST_ROLE), np.where(in_step, _UNPLACED, _NO_STEP))
    if len(is_counted):
        slot[is_placed & ~is_counted[step_of_kernel]] = _CUT
    return slot.astype(np.int8)


def _slot_ns(capture: Capture, names: KernelNames, usage: DeviceUsage, slot: _Array) -> _Array:
    """Time of one device by slot and name, float64 ``(slots, names)``."""
    kernels, manifest, traced = capture.kernels, capture.manifest, usage.traced
    here = np.flatnonzero(kernels.device == usage.device.index)
    ends = np.array([manifest.measure_start_ns, manifest.measure_end_ns])
    cuts = np.unique(np.concatenate([traced.start_ns, traced.end_ns, ends]))
    cell = slot[here].astype(np.int64) * len(names.names) + names.of_class[kernels.class_id[here]]
    sums = np.zeros(_NUM_SLOTS * len(names.names))
    for part in share_time(kernels.start_ns[here], kernels.end_ns[here], cuts, traced.contains(cuts[:-1])):
        sums += np.bincount(cell[part.row], part.shared_ns, len(sums))
    return sums.reshape(_NUM_SLOTS, -1)


def _shapes(capture: Capture) -> StepShapes:
    rides = capture.step_requests
    row = step_rows(capture.steps, rides)
    return StepShapes.of(capture.steps.num_padded, row, rides.num_scheduled, rides.context_len, rides.num_sampled)


def _rows(
    model: _Model,
    config: ModelConfig,
    names: KernelNames,
    places: KernelPlaces,
    slot: _Array,
    slot_ns: _Array,
    shapes: StepShapes,
    counted: _Array,
) -> tuple[WorkRow, ...]:
    """One row a role that ran in steps that count, most time first."""
    calls = np.bincount(slot, minlength=_NUM_SLOTS)[_FIRST_ROLE:]
    role_ns = slot_ns[_FIRST_ROLE:]
    busy_ns = float(slot_ns[:, ~names.is_meter].sum()) or 1.0
    rows = []
    for role in sorted((role for role in Role if calls[role]), key=lambda role: -float(role_ns[role].sum())):
        time_ns = float(role_ns[role].sum())
        layers = np.unique(places.layer[slot == role + _FIRST_ROLE])
        num_layers = int((layers >= 0).sum())
        work = kernel_work(role, config, model.scheme or Scheme(WeightFormat(16)), shapes, model.tensor_parallel)
        times = max(num_layers, 1)
        flops = _total(work.flops, counted, times)
        least_bytes = None if model.scheme is None else _total(work.least_bytes, counted, times)
        rows.append(
            WorkRow(
                role=role.name.lower(),
                op_family=FAMILY_OF_ROLE[role],
                implementation=_main_implementation(names, role_ns[role]),
                num_layers=num_layers,
                calls=int(calls[role]),
                time_s=ns_to_s(time_ns),
                time_share=time_ns / busy_ns,
                flops=flops,
                least_bytes=least_bytes,
                padding_flops=_total(work.padding_flops, counted, times) or 0,
                flops_per_s=flops / ns_to_s(time_ns) if flops is not None and time_ns else None,
                bytes_per_s=least_bytes / ns_to_s(time_ns) if least_bytes is not None and time_ns else None,
            )
        )
    return tuple(rows)


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


def _reason(model: _Model, places: KernelPlaces) -> str:
    if model.reason is not None:
        return model.reason
    if not len(places.is_placed):
        return "no engine steps were recorded"
    return next(iter(places.reasons), "no step of the measured window could be placed")


def _unplaced(places: KernelPlaces) -> list[str]:
    """A sentence for each reason why steps were not placed."""
    return [f"{count} steps are not placed: {reason}." for reason, count in places.reasons.items()]
