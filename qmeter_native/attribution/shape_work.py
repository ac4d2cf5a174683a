"""Work of a launch of each kernel class by the model's arithmetic, where no counter saw it.

The work of a role in a step (`qmeter_native.work.kernel_work`) is given to the launches of the role's main kernel in
that step, in equal parts. Helpers of a role (what quantizes its input, a split-K reduction) remain unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.classify import op_family, scheme
from qmeter_native.attribution.placed_work import PlacedWork, step_shapes
from qmeter_native.attribution.roles import Part, parts_of_classes
from qmeter_native.model.capture import Capture
from qmeter_native.model.power_model import PowerFeature
from qmeter_native.model.tables import KernelClassTable
from qmeter_native.work.kernel_work import KernelWork, StepShapes, kernel_work
from qmeter_native.work.role import FAMILY_OF_ROLE, LINEAR_ROLES, Role
from qmeter_native.work.scheme import Scheme

__all__ = ["is_main_kernel", "shape_work"]

_Array = NDArray[Any]

_MAX_STEPS: Final = 4096
"""Steps looked at, evenly spread: the mean work of a class's launches needs no more."""
_TILE: Final = 128
"""Rows and columns of the output that one block computes, reading all their inputs through L2: usual for tensor pipes
(CUTLASS's default); smaller tiles read more."""
_MIN_KNOWN: Final = 0.9
"""Part of a class's launches whose work is known, from which the class's is."""


@dataclass(frozen=True, slots=True)
class _Amounts:
    """Work by step, or by kernel class; float64 each.

    Attributes:
        dram_bytes, l2_bytes: Bytes.
        wide, narrow: Operations on 16-bit inputs, and on inputs of 8 bits and less.
    """

    dram_bytes: _Array
    l2_bytes: _Array
    wide: _Array
    narrow: _Array

    def by_feature(self, feature: PowerFeature, is_integer: _Array) -> _Array:
        """Of kernel classes; arithmetic does not tell instructions and SM seconds."""
        nothing = np.zeros_like(self.wide)
        return {
            PowerFeature.DRAM_BYTES: self.dram_bytes,
            PowerFeature.L2_BYTES: self.l2_bytes,
            PowerFeature.FP16_FLOP: self.wide,
            PowerFeature.FP8_FLOP: np.where(is_integer, 0.0, self.narrow),
            PowerFeature.INT8_OP: np.where(is_integer, self.narrow, 0.0),
        }.get(feature, nothing)


@dataclass(frozen=True, slots=True)
class _Launches:
    """A sample of kernels, one entry each: kernel class, step, role, layer."""

    class_id: _Array
    step: _Array
    role: _Array
    layer: _Array


def shape_work(
    capture: Capture, placed: PlacedWork, step_of_kernel: _Array, device: int, features: Sequence[PowerFeature]
) -> tuple[_Array, _Array]:
    """Mean work of a launch of each class on ``device``.

    Args:
        capture: The capture.
        placed: Its kernels in their places.
        step_of_kernel: That of `kernel_steps`.
        device: DeviceInfo.index.
        features: The columns wanted.

    Returns:
        float64 (classes, K) and a mask of the classes whose work is known.
    """
    classes = capture.kernel_classes
    count = len(classes)
    if placed.model.config is None or placed.model.scheme is None or len(capture.steps) == 0:
        return np.zeros((count, len(features))), np.zeros(count, bool)
    sample = _sample(capture, placed, step_of_kernel, device)
    total, known = _add_up(placed, sample, step_shapes(capture), is_main_kernel(classes))
    launches = np.bincount(sample.class_id, minlength=count)
    is_known = (known > 0) & (known >= _MIN_KNOWN * launches)
    is_integer = np.array([(scheme(name) or "").endswith("INT") for name in classes.name.tolist()], bool)
    columns = [total.by_feature(feature, is_integer) / np.maximum(known, 1) for feature in features]
    work = np.stack(columns, axis=1)
    return np.where(is_known[:, None], work, 0.0), is_known


def _sample(capture: Capture, placed: PlacedWork, step_of_kernel: _Array, device: int) -> _Launches:
    """Kernels of the device in at most `_MAX_STEPS` of the placed steps that count."""
    counted = np.flatnonzero(placed.is_counted & placed.places.is_placed)
    is_sampled = np.zeros(len(capture.steps), bool)
    is_sampled[counted[:: max(1, math.ceil(len(counted) / _MAX_STEPS))]] = True
    rows = np.flatnonzero(is_sampled[step_of_kernel] & (step_of_kernel >= 0))
    rows = rows[(placed.places.role[rows] >= 0) & (capture.kernels.device[rows] == device)]
    places = placed.places
    return _Launches(capture.kernels.class_id[rows], step_of_kernel[rows], places.role[rows], places.layer[rows])


def _add_up(placed: PlacedWork, sample: _Launches, shapes: StepShapes, is_main: _Array) -> tuple[_Amounts, _Array]:
    """Work of the sample by kernel class, and how many of its launches did it."""
    count, num_steps = is_main.shape[1], len(shapes.num_tokens)
    total = _Amounts(*np.zeros((4, count)))
    known = np.zeros(count, np.int64)
    for role in Role:
        is_role = sample.role == role
        amounts = _amounts_of_steps(role, placed, shapes)
        mine = is_role & is_main[role, sample.class_id]
        if amounts is None or not mine.any():
            continue
        class_id, step = sample.class_id[mine], sample.step[mine]
        layers = np.unique(sample.layer[is_role])
        share = max(int((layers >= 0).sum()), 1) / np.maximum(np.bincount(step, minlength=num_steps), 1)
        for name in _Amounts.__slots__:
            values = getattr(amounts, name) * share
            getattr(total, name)[:] += np.bincount(class_id, values[step], count)
        known += np.bincount(class_id, minlength=count)
    return total, known


def is_main_kernel(classes: KernelClassTable) -> _Array:
    """Mask ``(roles, classes)``: a kernel of the class does the role's own work."""
    parts = parts_of_classes(classes)
    families = np.array([op_family(name).value for name in classes.name.tolist()], object)
    of_part = {**dict.fromkeys(LINEAR_ROLES, Part.GEMM), Role.ATTENTION: Part.ATTENTION}
    return np.stack(
        [parts == of_part[role] if role in of_part else families == FAMILY_OF_ROLE[role].value for role in Role]
    )


def _amounts_of_steps(role: Role, placed: PlacedWork, shapes: StepShapes) -> _Amounts | None:
    """Work of the role in one layer, one entry a step; None where the model does not know it."""
    model = placed.model
    if model.config is None or model.scheme is None:
        return None
    work = kernel_work(role, model.config, model.scheme, shapes, model.tensor_parallel)
    if work.least_bytes is None:
        return None
    flops = np.zeros(len(work.padding_flops)) if work.flops is None else (work.flops + work.padding_flops).astype(float)
    is_narrow = _is_narrow(role, model.scheme)
    return _Amounts(
        dram_bytes=work.least_bytes.astype(float),
        l2_bytes=_l2_bytes(role, work, model.scheme).astype(float),
        wide=np.zeros_like(flops) if is_narrow else flops,
        narrow=flops if is_narrow else np.zeros_like(flops),
    )


def _is_narrow(role: Role, formats: Scheme) -> bool:
    """A product that reads 8-bit activations or narrower ones runs on pipes for these."""
    is_quantized = role in LINEAR_ROLES and (role is not Role.LM_HEAD or formats.is_head_quantized)
    return is_quantized and formats.activation_bits <= 8


def _l2_bytes(role: Role, work: KernelWork, formats: Scheme) -> _Array:
    """Bytes through L2: of a product, inputs once for each tile that needs them; else what DRAM moves at least."""
    if work.m is None or work.n is None or work.k is None:
        return np.asarray(work.least_bytes)
    weights = formats.weight_of(role).num_bytes(work.n, work.k) * np.ceil(work.m / _TILE)
    inputs = work.m * (formats.input_bytes(role, work.k) * math.ceil(work.n / _TILE))
    outputs = work.m * (work.n * formats.compute_bits / 8)
    return np.asarray(weights + inputs + outputs)
