"""Energy by part of the machine."""

from __future__ import annotations

from typing import Final

from qmeter_native.attribution.energy_pool import EnergyPool
from qmeter_native.attribution.energy_use import COMPONENTS
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.report import ComponentRow

__all__ = ["component_rows"]

_MODELLED: Final = "modelled: kernels' dynamic joules by the power model's coefficients"


def component_rows(pool: EnergyPool) -> tuple[ComponentRow, ...]:
    """Dynamic joules by component, then static and idle ones; empty where nothing is known.

    A component errs at least as the kernels' joules do; how their split errs the model does not say, so only those of
    all kernels have an interval.
    """
    joules = pool.joules(lambda use: use.column_ns[None, :])
    if joules is None:
        return ()
    by_component = dict(zip(COMPONENTS, joules.components_j[0].tolist(), strict=True))
    rows = [(name, Estimate(value, method=_MODELLED, reason=pool.caveat)) for name, value in by_component.items()]
    rows = [*((name, energy) for name, energy in rows if energy.value), ("static", pool.static), ("idle", pool.idle)]
    gross_j = pool.gross.value
    return tuple(
        ComponentRow(name, energy, energy.value / gross_j if energy.value is not None and gross_j else None)
        for name, energy in rows
    )
