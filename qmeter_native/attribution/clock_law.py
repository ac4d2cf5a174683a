"""How the energy of work goes with the SM clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qmeter_native.model.power_model import PowerModel

__all__ = ["ClockLaw"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ClockLaw:
    """``clock^exponent``, bent around the clock that a run had on average.

    What the core's supply feeds costs ``clock^exponent * (clock / pivot)^shift``. The shift is fitted to a run. At the
    pivot it changes nothing, so joules at the reference clock do not depend on it.

    Attributes:
        core_exponent: Of a core event.
        active_exponent: Of the power of a busy chip.
        dram_share: float64 (C,), part of the joules of each class that does not go with the clock.
        pivot: Clock over the reference.
        shift: What is added to both exponents.
    """

    core_exponent: float
    active_exponent: float
    dram_share: _Array
    pivot: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, model: PowerModel, dram_share: _Array, pivot: float = 1.0, shift: float = 0.0) -> ClockLaw:
        """The law of a power model."""
        return cls(model.core_exponent, model.active_exponent, dram_share, pivot, shift)

    def factors(self, clock: _Array) -> tuple[_Array, _Array]:
        """By clocks (W,): joules of a unit (W, C) and active power (W,), over those at the reference clock."""
        unit = self._core(clock)[:, None] * (1.0 - self.dram_share)
        unit += self.dram_share
        return unit, self._active(clock)

    def core_factors(self, clock: _Array) -> tuple[_Array, _Array]:
        """As `factors`, of what goes with the clock only."""
        return self._core(clock)[:, None] * (1.0 - self.dram_share), self._active(clock)

    def _core(self, clock: _Array) -> _Array:
        core: _Array = clock**self.core_exponent * (clock / self.pivot) ** self.shift
        return core

    def _active(self, clock: _Array) -> _Array:
        active: _Array = clock**self.active_exponent * (clock / self.pivot) ** self.shift
        return active
