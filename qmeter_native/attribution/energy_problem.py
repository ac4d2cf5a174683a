"""Windows of measured energy, and the kernels that ran in them: what the estimator fits, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from qmeter_native.model.power_model import EnergyMode, PowerFeature

__all__ = ["EnergyProblem"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class EnergyProblem:
    """One device's windows (W), kernel classes (C) and features of their work (K).

    A class's work is counted in *units*: launches, or, for a class whose launches are unlike, time over its mean time.

    Attributes:
        length_s: float64 (W,), length of each window, as far as it was traced.
        energy_j: float64 (W,), measured.
        error_j: float64 (W,), the sensor's standard error.
        idle_w: float64 (W,), idle power in each window.
        busy_s: float64 (W,), union of all kernels.
        clock: float64 (W,), SM clock over the power model's reference; 1 where it was not read.
        cap_w: float64 (W,), power limit of windows in which the limit held clocks down; 0 elsewhere.
        units: float64 (W, C), units of each class in each window; those cut by a bound count in part.
        time_s: float64 (W, C), time given to each class.
        features: The columns of ``work``.
        work: float64 (C, K), work of one unit.
        modes: EnergyMode of each class: how its work is known.
        is_fitted: bool (W,), windows whose energy the fit may see. Others are predicted: held out, or with a counter
            phase in them.
        seen_units: float64 (W, C), ``units`` as the sensor weighs time (`SensorView`); None if it sees all alike.
        seen_busy_s: float64 (W,), ``busy_s`` likewise; None with ``seen_units``.
    """

    length_s: _Array
    energy_j: _Array
    error_j: _Array
    idle_w: _Array
    busy_s: _Array
    clock: _Array
    cap_w: _Array
    units: _Array
    time_s: _Array
    features: tuple[PowerFeature, ...]
    work: _Array
    modes: tuple[EnergyMode, ...]
    is_fitted: _Array
    seen_units: _Array | None = None
    seen_busy_s: _Array | None = None

    @property
    def num_windows(self) -> int:
        """W."""
        return len(self.length_s)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.modes)

    def as_read(self) -> EnergyProblem:
        """The same windows with the work that the sensor saw in place of the work that was done."""
        if self.seen_units is None or self.seen_busy_s is None:
            return self
        return replace(self, units=self.seen_units, busy_s=self.seen_busy_s, seen_units=None, seen_busy_s=None)
