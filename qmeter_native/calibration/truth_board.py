"""The truth test of one board: predictions of what was hidden, beside what the counter said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_fit import EnergyFit
from qmeter_native.calibration.load_problem import LoadProblem
from qmeter_native.calibration.load_window import WindowRole
from qmeter_native.calibration.truth_checks import (
    Hidden,
    Intervention,
    UnseenKind,
    has_role,
    hidden_predictions,
    interventions,
    mixtures_fit,
    singles_model,
    unseen_kinds,
)
from qmeter_native.model.power_model import PowerModel

__all__ = ["BoardTruth", "uncapped_mixtures"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class BoardTruth:
    """What was asked of one board's windows (W), which are fitted by themselves: boards differ by up to 5 %.

    Attributes:
        loads: The windows.
        hidden: Their predictions.
        is_uncapped: Mask, mixtures below the power cap.
        is_capped: Mask, mixtures at it.
        interventions: Every complete one.
        unseen: By kind.
        model: What calibration made of the kinds alone.
        serving: A fit as in serving: calibrated on the kinds alone, windows of mixtures only.
    """

    loads: LoadProblem
    hidden: Hidden
    is_uncapped: _Array
    is_capped: _Array
    interventions: tuple[Intervention, ...]
    unseen: tuple[UnseenKind, ...]
    model: PowerModel
    serving: EnergyFit

    @classmethod
    def of(cls, loads: LoadProblem, prior: PowerModel) -> BoardTruth:
        """Of all windows of a board; ``prior`` is what was known before any of it."""
        is_uncapped = uncapped_mixtures(loads)
        model = singles_model(loads, prior)
        hidden = hidden_predictions(loads, model)
        return cls(
            loads=loads,
            hidden=hidden,
            is_uncapped=is_uncapped,
            is_capped=has_role(loads, WindowRole.MIXTURE) & ~is_uncapped,
            interventions=tuple(interventions(loads, hidden)),
            unseen=tuple(unseen_kinds(loads, prior)),
            model=model,
            serving=mixtures_fit(loads, model),
        )

    @property
    def is_mixture(self) -> _Array:
        """Mask, all mixtures."""
        return np.asarray(self.is_uncapped | self.is_capped)


def uncapped_mixtures(loads: LoadProblem) -> _Array:
    """Mask of the mixtures below the power cap."""
    return np.asarray(has_role(loads, WindowRole.MIXTURE) & (loads.problem.cap_w == 0))
