"""What one unit of each of the estimator's columns does, and how that is known: by counters, by shapes, or by time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.counter_work import counter_work
from qmeter_native.attribution.energy_classes import EnergyClasses
from qmeter_native.attribution.kernel_counters import kernel_counters
from qmeter_native.attribution.shape_work import shape_work
from qmeter_native.devices.gpu_database import chip_info
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.power_model import EnergyMode, PowerFeature

__all__ = ["ClassWork"]

_Array = NDArray[Any]

_MIN_KNOWN: Final = 0.9
"""Part of a pool's time whose work is known, from which the pool's is."""


@dataclass(frozen=True, slots=True)
class ClassWork:
    """Work by column (C) and feature (K).

    Attributes:
        per_second: float64 (C, K), of a second of each column's kernels.
        per_launch: float64 (C, K), of a launch, of columns of one class; equal to ``per_second`` times the mean time
            if launches last as long as those that were counted.
        modes: How it is known.
    """

    per_second: _Array
    per_launch: _Array
    modes: tuple[EnergyMode, ...]

    @classmethod
    def of(
        cls,
        plan: CapturePlan,
        device: DeviceInfo,
        classes: EnergyClasses,
        features: tuple[PowerFeature, ...],
    ) -> ClassWork:
        """By the device's counters if they were sampled, else by shapes where the model places the kernels."""
        shaped = shape_work(plan.capture, plan.placed, plan.step_of_kernel, device.index, features)
        sources = [_counted(plan.capture, device, features), (*shaped, classes.mean_s)]
        work = np.zeros((2, classes.count, len(features)))
        modes = [EnergyMode.TIME] * classes.count
        for mode, source in zip((EnergyMode.COUNTERS, EnergyMode.SHAPES), sources, strict=True):
            if source is None:
                continue
            found, is_known = _pooled(classes, *source)
            is_open = np.array([one is EnergyMode.TIME for one in modes], bool)
            is_new = is_known & is_open & ~classes.is_meter
            work[:, is_new] = found[:, is_new]
            modes = [mode if new else one for new, one in zip(is_new, modes, strict=True)]
        return cls(work[0], work[1], tuple(modes))

    def of_units(self, is_launch: _Array, unit_s: _Array, clock: float, features: tuple[PowerFeature, ...]) -> _Array:
        """float64 (C, K): work of one unit, a launch or ``unit_s`` seconds; SM seconds are at the reference clock.

        Where they were not counted, all SMs are taken as active all the time.
        """
        work = np.where(is_launch[:, None], self.per_launch, self.per_second * unit_s[:, None])
        if PowerFeature.SM_SECONDS in features:
            column = features.index(PowerFeature.SM_SECONDS)
            is_counted = np.array([mode is EnergyMode.COUNTERS for mode in self.modes], bool)
            given = is_counted & (work[:, column] > 0)
            work[:, column] = np.where(given, work[:, column], unit_s * clock)
        return np.asarray(work)


def _counted(
    capture: Capture, device: DeviceInfo, features: tuple[PowerFeature, ...]
) -> tuple[_Array, _Array, _Array] | None:
    """Work of a launch, whether it was measured, and how long those launches were, by kernel class."""
    chip = chip_info(device.name, device.properties.get("compute_capability"))
    counters = None if chip is None else kernel_counters(capture, device.index)
    if chip is None or counters is None:
        return None
    return counter_work(counters, chip, features), counters.is_measured, counters.mean_s


def _pooled(classes: EnergyClasses, work: _Array, is_known: _Array, mean_s: _Array) -> tuple[_Array, _Array]:
    """Work of a second and of a launch of each column, float64 (2, C, K), and whether it is known."""
    known = classes.launches * is_known

    def total(values: _Array) -> _Array:
        return np.bincount(classes.column, values, classes.count).astype(float)  # of nothing, bincount makes integers

    launches, seconds = total(known), total(known * mean_s)
    all_s = total(classes.launches * classes.mean_s)
    sums = np.stack([total(known * values) for values in work.T], axis=1)
    rates = np.stack([_ratio(sums, seconds), _ratio(sums, launches)])
    return rates, (seconds > 0) & (total(known * classes.mean_s) >= _MIN_KNOWN * all_s)


def _ratio(sums: _Array, divisor: _Array) -> _Array:
    wide = np.broadcast_to(divisor[:, None], sums.shape)
    return np.asarray(np.divide(sums, wide, out=np.zeros_like(sums), where=wide > 0))
