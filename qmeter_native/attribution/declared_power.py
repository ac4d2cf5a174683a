"""The power model of a device whose energy nothing measured: a declared power while kernels run."""

from __future__ import annotations

from typing import Final

import numpy as np

from qmeter_native.model.power_model import EnergyMode, PowerFeature, PowerModel

__all__ = ["declared_model"]

_CERTAINTY: Final = 1e-3
"""Relative error of everything: a declaration is not refined by windows that were made from it."""


def declared_model(power_w: float) -> PowerModel:
    """All of ``power_w`` is dynamic and goes by time; a declaration knows neither idle nor active power."""
    coefficient = np.array([power_w])
    return PowerModel(
        features=(PowerFeature.SM_SECONDS,),
        coefficient=coefficient,
        covariance=np.diag((_CERTAINTY * coefficient) ** 2),
        reference_mhz=1.0,
        core_exponent=0.0,
        active_w=0.0,
        active_error_w=0.0,
        active_exponent=0.0,
        idle_w=0.0,
        idle_w_per_k=0.0,
        idle_temperature_c=0.0,
        discrepancy=dict.fromkeys(EnergyMode, _CERTAINTY),
        window_error=_CERTAINTY,
        source="declared",
    )
