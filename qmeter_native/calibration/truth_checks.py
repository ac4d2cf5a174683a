"""What the truth test asks of an estimator: windows hidden from its fit, changes of one kind, kinds it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_fit import EnergyFit, fit_energy
from qmeter_native.calibration.load_problem import LoadProblem, fitted, selected
from qmeter_native.calibration.load_window import WindowRole
from qmeter_native.calibration.power_fit import fit_power_model
from qmeter_native.model.power_model import PowerModel

__all__ = [
    "Z95",
    "Hidden",
    "Intervention",
    "UnseenKind",
    "additive_j",
    "has_role",
    "hidden_predictions",
    "interventions",
    "mean_power_j",
    "mixtures_fit",
    "singles_model",
    "unseen_kinds",
]

_Array = NDArray[Any]

Z95: Final = 1.959964
"""Half of a 95 % interval of a normal distribution, in standard deviations."""
_NUM_FOLDS: Final = 10


@dataclass(frozen=True, slots=True)
class Hidden:
    """Predicted readings of windows (W) by fits that did not see them; NaN where a window was never hidden.

    Attributes:
        mean_j: float64 (W,).
        error_j: float64 (W,), standard error of the prediction and of the sensor together.
    """

    mean_j: _Array
    error_j: _Array


@dataclass(frozen=True, slots=True)
class Intervention:
    """One kind changed in an otherwise equal mixture, over the mean length of its windows.

    Attributes:
        group: Its name in the plan.
        changed: The kind.
        run: Of which run.
        measured_j: Side B less side A.
        predicted_j: The same by a fit that saw none of the four windows.
        measured_error_j: Standard error of ``measured_j``: by the sensor, and by how far equal windows differ.
        is_capped: Whether the power limit held clocks down in any of them.
    """

    group: str
    changed: str
    run: int
    measured_j: float
    predicted_j: float
    measured_error_j: float
    is_capped: bool

    @property
    def relative_error(self) -> float:
        """Of the prediction."""
        return abs(self.predicted_j - self.measured_j) / max(abs(self.measured_j), 1e-9)

    @property
    def is_within(self) -> bool:
        """Whether the prediction lies in the counter's own 95 % interval."""
        return abs(self.predicted_j - self.measured_j) <= Z95 * self.measured_error_j


@dataclass(frozen=True, slots=True)
class UnseenKind:
    """A kind that calibration never saw: joules of a launch above idle, by mixtures alone and by its paced windows."""

    kind: str
    measured_j: float
    predicted_j: float

    @property
    def relative_error(self) -> float:
        """Of the prediction."""
        return abs(self.predicted_j - self.measured_j) / max(abs(self.measured_j), 1e-12)


def has_role(loads: LoadProblem, *roles: WindowRole) -> _Array:
    """Mask of the windows of some roles."""
    return np.array([window.role in roles for window in loads.windows], bool)


def singles_model(loads: LoadProblem, prior: PowerModel, without: str | None = None) -> PowerModel:
    """The power model that calibration makes of the windows of kinds alone, as if there were no kind ``without``."""
    is_known = np.array([name != without for name in loads.kinds], bool)
    windows = has_role(loads, WindowRole.SINGLE) & (loads.problem.units[:, ~is_known].sum(axis=1) == 0)
    names = [name for name in loads.kinds if name != without]
    model, _ = fit_power_model(selected(loads.problem, windows, is_known), names, prior)
    return model


def hidden_predictions(loads: LoadProblem, model: PowerModel, seed: int = 0) -> Hidden:
    """Readings of mixtures and interventions, each predicted by a fit that saw none of its group, before any scaling.

    Groups are dealt to ten folds at random; the windows of kinds alone are always seen.
    """
    is_tested = has_role(loads, WindowRole.MIXTURE, WindowRole.INTERVENTION)
    groups = np.array([window.group for window in loads.windows], object)
    names = sorted(set(groups[is_tested]))
    fold_of = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % _NUM_FOLDS, strict=True))
    fold = np.array([fold_of.get(group, -1) if t else -1 for group, t in zip(groups, is_tested, strict=True)])
    mean_j, error_j = np.full((2, len(groups)), np.nan)
    for number in range(_NUM_FOLDS):
        rows = fold == number
        if rows.any():
            prediction = fit_energy(fitted(loads.problem, ~rows), model).predict_reading(loads.problem)
            mean_j[rows] = prediction.mean_j[rows]
            error_j[rows] = np.hypot(prediction.error_j, loads.problem.error_j)[rows]
    return Hidden(mean_j, error_j)


def additive_j(loads: LoadProblem) -> _Array:
    """The sum of isolated energies: idle, and each launch's joules above idle when its kind runs alone without gaps.

    Of launches that ran, not that the sensor saw: who adds up does not know of that.
    """
    problem = loads.problem
    is_flat_out = np.array([w.role is WindowRole.SINGLE and w.slot_s == 0 for w in loads.windows], bool)
    idle_j = problem.idle_w * problem.length_s
    above_j = np.where(is_flat_out, problem.energy_j - idle_j, 0.0) @ (problem.units > 0)
    launches = np.where(is_flat_out[:, None], problem.units, 0.0).sum(axis=0)
    launch_j = np.divide(above_j, launches, out=np.zeros(problem.num_classes), where=launches > 0)
    return np.asarray(idle_j + problem.units @ launch_j)


def mean_power_j(loads: LoadProblem, rows: _Array) -> _Array:
    """Mean power times time: idle, and over the busy time what windows ``rows`` drew above idle on average, but
    without a window's own.
    """
    problem = loads.problem
    idle_j = problem.idle_w * problem.length_s
    above_j, busy_s = np.where(rows, problem.energy_j - idle_j, 0.0), np.where(rows, problem.busy_s, 0.0)
    others_w = (above_j.sum() - above_j) / np.maximum(busy_s.sum() - busy_s, 1e-9)
    return np.asarray(idle_j + others_w * problem.busy_s)


def interventions(loads: LoadProblem, hidden: Hidden) -> list[Intervention]:
    """Every intervention of which all four windows are there."""
    problem = loads.problem
    groups: dict[tuple[int, str], list[int]] = {}
    for row in np.flatnonzero(has_role(loads, WindowRole.INTERVENTION)):
        groups.setdefault((int(loads.run[row]), loads.windows[row].group), []).append(int(row))
    complete = {key: rows for key, rows in groups.items() if len(rows) == 4}
    measured_w, predicted_w = problem.energy_j / problem.length_s, hidden.mean_j / problem.length_s
    repeat_w = _repeat_error(loads, list(complete.values()), measured_w - predicted_w)
    found = []
    for (run, group), rows in complete.items():
        signs = np.array([0.5 if loads.windows[row].side == "B" else -0.5 for row in rows])
        length_s = float(problem.length_s[rows].mean())
        sensor_w = float(np.sqrt(((problem.error_j[rows] / problem.length_s[rows]) ** 2).sum()) / 2)
        found.append(
            Intervention(
                group=group,
                changed=loads.windows[rows[0]].changed,
                run=run,
                measured_j=float(signs @ measured_w[rows]) * length_s,
                predicted_j=float(signs @ predicted_w[rows]) * length_s,
                measured_error_j=max(sensor_w, repeat_w) * length_s,
                is_capped=bool((problem.cap_w[rows] > 0).any()),
            )
        )
    return found


def _repeat_error(loads: LoadProblem, groups: Sequence[list[int]], rest_w: _Array) -> float:
    """Standard error in watts of a difference of two means of two windows, from how far windows of one side differ.

    ``rest_w`` is beside their predictions: the sensor may have seen more of the one than of the other.
    """
    squares = []
    for rows in groups:
        for side in "AB":
            first, second = (rest_w[row] for row in rows if loads.windows[row].side == side)
            squares.append((first - second) ** 2 / 2)
    return float(np.sqrt(np.mean(squares))) if squares else 0.0


def mixtures_fit(loads: LoadProblem, model: PowerModel) -> EnergyFit:
    """A fit as in serving: calibrated before, the run's windows are mixtures only."""
    return fit_energy(fitted(loads.problem, has_role(loads, WindowRole.MIXTURE, WindowRole.INTERVENTION)), model)


def unseen_kinds(loads: LoadProblem, prior: PowerModel) -> list[UnseenKind]:
    """Each kind predicted as if calibration had never met it; those whose paced windows were capped are left out."""
    problem = loads.problem
    is_paced = np.array([w.role is WindowRole.SINGLE and w.slot_s > 0 for w in loads.windows], bool)
    found = []
    for column, kind in enumerate(loads.kinds):
        rows = is_paced & (problem.units[:, column] > 0) & (problem.cap_w == 0)
        if not rows.any():
            continue
        prediction = mixtures_fit(loads, singles_model(loads, prior, without=kind)).predict_reading(problem)
        launches = problem.as_read().units[rows, column].sum()
        measured_j = (problem.energy_j - problem.idle_w * problem.length_s)[rows].sum() / launches
        predicted_j = (prediction.mean_j - prediction.idle_j)[rows].sum() / launches
        found.append(UnseenKind(kind, float(measured_j), float(predicted_j)))
    return found
