"""Kernels of a capture in their places in the model, and what the engine's steps computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.layers import KernelPlaces, kernel_places
from qmeter_native.attribution.shares import step_rows
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.work.kernel_work import StepShapes
from qmeter_native.work.model_config import ModelConfig, read_model_config
from qmeter_native.work.role import Role
from qmeter_native.work.scheme import Scheme, read_scheme

__all__ = [
    "CUT",
    "FIRST_ROLE",
    "UNPLACED",
    "KernelGroups",
    "PlacedWork",
    "ServedModel",
    "layers_by_role",
    "step_shapes",
]

_Array = NDArray[Any]

NO_STEP, UNPLACED, CUT, FIRST_ROLE = 0, 1, 2, 3
"""Groups of kernels: outside steps; in a step without places; placed, in a step that does not count; then by role."""


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
class ServedModel:
    """What the engine says about its model: sizes and formats, or why they are not known."""

    config: ModelConfig | None
    scheme: Scheme | None
    tensor_parallel: int
    reason: str | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, engine: EngineInfo | None) -> ServedModel:
        """Read what it reported; see `EngineInfo.effective`."""
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


@dataclass(frozen=True, slots=True)
class PlacedWork:
    """The kernels of a capture in their places, grouped by role, before their time is known.

    Attributes:
        model: What the engine says about its model.
        places: Where each kernel stands.
        is_counted: Mask of the steps that count.
        groups: Group of each kernel.
    """

    model: ServedModel
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
        model = ServedModel.of(capture.manifest.engine)
        places = kernel_places(capture, step_of_kernel, 0 if model.config is None else model.config.num_layers)
        is_placed = places.role >= 0
        group = np.where(step_of_kernel >= 0, np.int8(UNPLACED), np.int8(NO_STEP))
        group[is_placed] = places.role[is_placed] + np.int8(FIRST_ROLE)
        if len(is_counted):
            group[is_placed & ~is_counted[step_of_kernel]] = CUT
        return cls(model, places, is_counted, KernelGroups(group, FIRST_ROLE + len(Role)))


def step_shapes(capture: Capture) -> StepShapes:
    """What each engine step computes.

    A step samples at each draft of a sequence too, to tell whether it is accepted.
    """
    rides = capture.step_requests
    row = step_rows(capture.steps, rides)
    num_sampled = np.where(rides.num_sampled > 0, rides.num_sampled + rides.num_draft, 0)
    return StepShapes.of(capture.steps.num_padded, row, rides.num_scheduled, rides.context_len, num_sampled)


def layers_by_role(placed: PlacedWork, num_layers: int) -> dict[Role, int]:
    """In how many layers each role occurs."""
    group, layer = placed.groups.group, placed.places.layer
    cell = group.astype(np.int32) * (num_layers + 1) + (layer + np.int16(1))
    found = np.bincount(cell, minlength=placed.groups.count * (num_layers + 1)).reshape(-1, num_layers + 1) > 0
    return {role: int(found[FIRST_ROLE + role, 1:].sum()) for role in Role}
