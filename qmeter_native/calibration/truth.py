"""The truth test: from the windows of a run of loads to figures that say how far joules can be believed.

A window's truth is the energy counter; an intervention's the difference of two pairs of windows; a kind's that of its
paced windows. Everything predicted was hidden from what predicts it. Each board is fitted by itself; errors
are pooled. `recompute` makes the same figures of the rows of a result file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.calibration.load_problem import LoadProblem, merged
from qmeter_native.calibration.result_document import Metric
from qmeter_native.calibration.truth_board import BoardTruth, uncapped_mixtures
from qmeter_native.calibration.truth_checks import Z95, Intervention, UnseenKind, additive_j, mean_power_j
from qmeter_native.devices.profile_json import profile_from_dict, profile_to_dict
from qmeter_native.errors import CaptureError
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.power_model import PowerModel

__all__ = ["Truth", "recompute", "truth", "truth_row", "wilson_interval"]

_Array = NDArray[Any]
_Predictor = Callable[[BoardTruth, _Array], _Array]

_NUM_RESAMPLES: Final = 2000
_MIN_MIXTURES: Final = 3
_PREDICTORS: Final[Mapping[str, _Predictor]] = {
    "window_error": lambda board, _: board.hidden.mean_j,
    "additive_error": lambda board, _: additive_j(board.loads),
    "mean_power_error": lambda board, rows: mean_power_j(board.loads, rows),
    "cap_error": lambda board, _: np.asarray(board.loads.problem.cap_w.max() * board.loads.problem.length_s),
}
"""Joules of windows by name of their error: the estimator, and what is there to be beaten."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The result of a truth test.

    Attributes:
        metrics: Figures by name; errors and shares are fractions. An interval is the bootstrap's 95 %.
        boards: What they come from.
    """

    metrics: Mapping[str, Metric]
    boards: tuple[BoardTruth, ...]

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Of all boards."""
        return tuple(change for board in self.boards for change in board.interventions)

    @property
    def unseen(self) -> tuple[UnseenKind, ...]:
        """Kinds, once for each board."""
        return tuple(kind for board in self.boards for kind in board.unseen)


def truth(boards: Iterable[tuple[LoadProblem, PowerModel]]) -> Truth:
    """Compute every figure.

    Args:
        boards: Windows of one or more runs on each board, and what is known before any of it: the datasheet's model,
            so that no kind has been seen.

    Raises:
        CaptureError: There are fewer than three mixtures below the power cap.
    """
    usable = [(loads, prior) for loads, prior in boards if uncapped_mixtures(loads).any()]
    num_mixtures = sum(int(uncapped_mixtures(loads).sum()) for loads, _ in usable)
    if num_mixtures < _MIN_MIXTURES:
        raise CaptureError(
            f"there are {num_mixtures} mixtures below the power cap", "Give the test a larger budget, or all its runs."
        )
    found = tuple(BoardTruth.of(loads, prior) for loads, prior in usable)
    metrics = {
        **_window_metrics(found),
        **_intervention_metrics([change for board in found for change in board.interventions]),
        **_unseen_metrics([kind for board in found for kind in board.unseen]),
        **_interval_metrics(found),
        **_counts(found),
    }
    return Truth(metrics, found)


def truth_row(loads: LoadProblem, prior: DeviceProfile) -> dict[str, Any]:
    """A row of a result file: all windows of one run, and the profile that nothing was known beyond."""
    return {"profile": profile_to_dict(prior), **loads.to_dict()}


def recompute(rows: Sequence[Mapping[str, Any]]) -> Truth:
    """The test's figures from the rows of one or more result files. Rows of one board, by its UUID, are pooled.

    Raises:
        CaptureError: There are no rows, or too few mixtures in them.
        ProfileError: A row's profile is damaged.
    """
    if not rows:
        raise CaptureError("there are no rows to recompute the truth test from", "Give result files of the truth test.")
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        runs.setdefault(row["profile"]["uuid"], []).append(row)
    return truth(
        (LoadProblem.from_dict(merged(board)), profile_from_dict(board[0]["profile"]).power_model)
        for board in runs.values()
    )


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of which ``hits`` of ``count`` were seen (Wilson, 1927)."""
    share, z2 = hits / count, Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return middle - half, middle + half


def _window_metrics(boards: Sequence[BoardTruth]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    is_any_capped = any(board.is_capped.any() for board in boards)
    for side in ("uncapped", "capped"):
        for name, predicted_j in _PREDICTORS.items():
            errors = np.concatenate([_errors(board, predicted_j, side) for board in boards])
            if len(errors) == 0 or (name == "cap_error" and not is_any_capped):
                continue
            metrics[f"{name}_median_{side}"] = _quantile(errors, 0.5)
            if name == "window_error":
                metrics[f"{name}_p95_{side}"] = _quantile(errors, 0.95)
                metrics[f"{name}_max_{side}"] = _quantile(errors, 1.0)
    return metrics


def _errors(board: BoardTruth, predicted_j: _Predictor, side: str) -> _Array:
    rows = board.is_capped if side == "capped" else board.is_uncapped
    energy_j = board.loads.problem.energy_j[rows]
    return np.asarray(np.abs(predicted_j(board, rows)[rows] - energy_j) / energy_j)


def _intervention_metrics(changes: Sequence[Intervention]) -> dict[str, Metric]:
    usable = [change for change in changes if not change.is_capped]
    if not usable:
        return {}
    within = sum(change.is_within for change in usable)
    own = np.array([Z95 * change.measured_error_j / max(abs(change.measured_j), 1e-9) for change in usable])
    return {
        "intervention_error_median": _quantile(np.array([change.relative_error for change in usable]), 0.5),
        "intervention_within_counter_share": _share(within, len(usable)),
        "intervention_counter_half_width_median": _quantile(own, 0.5),
    }


def _unseen_metrics(unseen: Sequence[UnseenKind]) -> dict[str, Metric]:
    if not unseen:
        return {}
    errors = np.array([kind.relative_error for kind in unseen])
    return {"unseen_error_median": _quantile(errors, 0.5), "unseen_error_p95": _quantile(errors, 0.95)}


def _interval_metrics(boards: Sequence[BoardTruth]) -> dict[str, Metric]:
    """Coverage of the hidden windows, and of a fit as in serving how wide its intervals are and what it resolves."""
    num_mixtures = sum(int(board.is_mixture.sum()) for board in boards)
    hits, resolved_j, all_j = 0, 0.0, 0.0
    half_widths, window_errors = [], []
    for board in boards:
        problem, rows, fit = board.loads.problem, board.is_mixture, board.serving
        off_j = np.abs(board.hidden.mean_j - problem.energy_j)[rows]
        hits += int((off_j <= Z95 * board.hidden.error_j[rows]).sum())
        dynamic_j = fit.predict(problem).dynamic_j[rows].sum(axis=0)
        resolved_j += float(dynamic_j[fit.is_resolved].sum())
        all_j += float(dynamic_j.sum())
        value_j, error_j = fit.class_j(problem.units[rows].sum(axis=0))
        half_widths.append(Z95 * error_j[value_j > 0] / value_j[value_j > 0])
        window_errors.append(fit.window_error)
    widths = np.concatenate(half_widths)
    return {
        "coverage_windows": _share(hits, num_mixtures),
        "resolved_energy_share": Metric(resolved_j / all_j, "1", n=len(widths)),
        "interval_half_width_median": _quantile(widths, 0.5),
        "fitted_window_error": Metric(float(np.mean(window_errors)), "1", n=num_mixtures),
    }


def _counts(boards: Sequence[BoardTruth]) -> dict[str, Metric]:
    counts = {
        "num_uncapped_mixtures": sum(int(board.is_uncapped.sum()) for board in boards),
        "num_capped_mixtures": sum(int(board.is_capped.sum()) for board in boards),
        "num_interventions": sum(not change.is_capped for board in boards for change in board.interventions),
        "num_kernel_kinds": len({kind for board in boards for kind in board.loads.kinds}),
        "num_quantized_kinds": len({kind for board in boards for kind in board.loads.quantized}),
        "num_runs": sum(len(set(board.loads.run.tolist())) for board in boards),
        "num_boards": len(boards),
    }
    return {name: Metric(count, "1") for name, count in counts.items()}


def _share(hits: int, count: int) -> Metric:
    low, high = wilson_interval(hits, count)
    return Metric(hits / count, "1", low, high, count)


def _quantile(values: _Array, level: float) -> Metric:
    """A quantile and its bootstrap's 95 % interval; None where there are fewer than three values."""
    quantile: Callable[..., Any] = np.quantile
    value = float(quantile(values, level))
    if len(values) < 3:
        return Metric(value, "1", n=len(values))
    draws = np.random.default_rng(0).integers(len(values), size=(_NUM_RESAMPLES, len(values)))
    low, high = np.quantile(quantile(values[draws], level, axis=1), [0.025, 0.975])
    return Metric(value, "1", float(low), float(high), len(values))
