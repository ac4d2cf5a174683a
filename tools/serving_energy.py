"""How well the energy of a served model is explained, and foretold for other batches and other kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.energy_classes import EnergyClasses
from qmeter_native.attribution.energy_fit import transfer
from qmeter_native.attribution.energy_split import EnergySplit
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.placed_work import PlacedWork
from qmeter_native.attribution.profiles import carried_profiles, expected_profile
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.steps import kernel_steps, step_spans, traced_steps
from qmeter_native.attribution.traced_time import traced_time
from qmeter_native.attribution.usage import device_usage
from qmeter_native.calibration.load_kernels import class_key
from qmeter_native.model.capture import Capture
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["Foretold", "ServedBatch", "foretold", "part_of", "residuals", "served_batch"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ServedBatch:
    """One batch size of one server.

    Attributes:
        split: What the estimator says of its windows.
        keys: What its columns are called, the same in every capture: a kernel class, or ``pool:`` and a family.
        num_tokens: Output tokens that clients received in windows without a counter phase.
    """

    split: EnergySplit
    keys: tuple[str, ...]
    num_tokens: int

    @property
    def is_fitted(self) -> _Array:
        """Mask of the windows without a counter phase."""
        return self.split.problem.is_fitted

    @property
    def energy_j(self) -> float:
        """Measured in these windows."""
        return float(self.split.problem.energy_j[self.is_fitted].sum())

    @property
    def energy_error_j(self) -> float:
        """Standard error of that by the sensor, windows taken as independent."""
        return float(np.sqrt(np.square(self.split.problem.error_j[self.is_fitted]).sum()))


@dataclass(frozen=True, slots=True)
class Foretold:
    """Energy of a batch by the fit of another, against the measured one; joules per output token."""

    measured_j: float
    predicted_j: float
    error_j: float
    known_share: float

    @property
    def error(self) -> float:
        """Relative."""
        return abs(self.predicted_j / self.measured_j - 1)


def part_of(capture: Capture, name: str) -> Capture:
    """The capture with the range of that name as its measured window."""
    rows = np.flatnonzero(capture.ranges.name == name)
    if len(rows) != 1:
        raise SystemExit(f"the capture has {len(rows)} ranges {name!r}, not one")
    start_ns, end_ns = int(capture.ranges.start_ns[rows[0]]), int(capture.ranges.end_ns[rows[0]])
    return replace(capture, manifest=replace(capture.manifest, measure_start_ns=start_ns, measure_end_ns=end_ns))


def served_batch(capture: Capture) -> ServedBatch:
    """Split the energy of the first device in the measured window."""
    device = capture.manifest.devices[0]
    names, spans = KernelNames.of(capture.kernel_classes), step_spans(capture)
    step_of_kernel, traced = kernel_steps(capture, spans), traced_time(capture, device.index)
    placed = PlacedWork.of(capture, step_of_kernel, traced_steps(capture, spans, {device.index: traced}))
    rides = Rides.of(capture.steps, capture.step_requests, capture.requests)
    plan = CapturePlan(capture, names, spans, step_of_kernel, rides, placed, StaticPolicy.SEPARATE)
    profile = carried_profiles(capture.manifest).get(device.index) or expected_profile(device)
    usage = device_usage(plan, device, profile, traced)
    if usage.energy is None:
        raise SystemExit(f"no energy was measured: {usage.windows.reason}")
    split, cuts_ns = usage.energy.split, usage.windows.cuts_ns
    window = np.searchsorted(cuts_ns, capture.output_tokens.time_ns, "right") - 1
    is_inside = (window >= 0) & (window < len(cuts_ns) - 1)
    counted = split.problem.is_fitted[np.where(is_inside, window, 0)] & is_inside
    return ServedBatch(split, _keys(capture, names, device.index), int(capture.output_tokens.num_tokens[counted].sum()))


def _keys(capture: Capture, names: KernelNames, device: int) -> tuple[str, ...]:
    """Names of the estimator's columns."""
    kernels = capture.kernels.take(capture.kernels.device == device)
    family = names.family[names.of_class]
    classes = EnergyClasses.of(
        kernels.class_id, kernels.end_ns - kernels.start_ns, family, names.is_meter[names.of_class]
    )
    first = np.full(classes.count, -1)
    first[classes.column[::-1]] = np.arange(len(family))[::-1]
    return tuple(
        class_key(capture.kernel_classes, row) if is_own else f"pool:{family[row]}"
        for row, is_own in zip(first.tolist(), classes.is_own.tolist(), strict=True)
    )


def residuals(batch: ServedBatch) -> _Array:
    """|measured - model's reading| over measured, of each window without a counter phase, before any scaling."""
    problem, rows = batch.split.problem, batch.is_fitted
    said = batch.split.fit.predict_reading(problem)
    missed: _Array = np.abs(said.mean_j - problem.energy_j)[rows] / problem.energy_j[rows]
    return missed


def foretold(fitted: ServedBatch, other: ServedBatch) -> Foretold:
    """The energy of ``other`` by the fit of ``fitted``; the measured energy of ``other`` is not looked at."""
    problem, rows = other.split.problem, other.is_fitted
    said = transfer(fitted.split.fit, fitted.keys, other.keys, problem).predict_reading(problem)
    by_class_j = said.dynamic_j[rows].sum(axis=0)
    is_known = np.isin(np.array(other.keys, object), np.array(fitted.keys, object))
    tokens = max(other.num_tokens, 1)
    return Foretold(
        measured_j=other.energy_j / tokens,
        predicted_j=float(said.mean_j[rows].sum()) / tokens,
        error_j=float(np.sqrt(np.square(said.error_j[rows]).sum())) / tokens,
        known_share=float(by_class_j[is_known].sum() / max(by_class_j.sum(), 1e-12)),
    )
