"""The truth test: from the windows of a run of loads to figures that say how far joules can be believed.

A window's truth is the energy counter; an intervention's the difference of two pairs of windows; a kind's that of its
paced windows. Everything predicted was hidden from what predicts it. `recompute` makes the same figures of the rows of
a result file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.calibration.load_problem import LoadProblem, merged
from qmeter_native.calibration.load_window import WindowRole
from qmeter_native.calibration.result_document import Metric
from qmeter_native.calibration.truth_checks import (
    Z95,
    Hidden,
    Intervention,
    UnseenKind,
    additive_j,
    has_role,
    hidden_predictions,
    interventions,
    mean_power_j,
    mixtures_fit,
    singles_model,
    unseen_kinds,
)
from qmeter_native.devices.profile_json import profile_from_dict, profile_to_dict
from qmeter_native.errors import CaptureError
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.power_model import PowerModel

__all__ = ["Truth", "recompute", "truth", "truth_row", "wilson_interval"]

_Array = NDArray[Any]

_NUM_RESAMPLES: Final = 2000
_MIN_MIXTURES: Final = 3


@dataclass(frozen=True, slots=True)
class Truth:
    """The result of a truth test.

    Attributes:
        metrics: Figures by name; errors and shares are fractions. An interval is the bootstrap's 95 %.
        loads: The windows.
        hidden: Their predictions.
        is_uncapped: Mask, mixtures below the power cap.
        is_capped: Mask, mixtures at it.
        interventions: Every complete one.
        unseen: By kind.
        model: What calibration made of the kinds alone.
    """

    metrics: Mapping[str, Metric]
    loads: LoadProblem
    hidden: Hidden
    is_uncapped: _Array
    is_capped: _Array
    interventions: tuple[Intervention, ...]
    unseen: tuple[UnseenKind, ...]
    model: PowerModel


def truth(loads: LoadProblem, prior: PowerModel) -> Truth:
    """Compute every figure.

    Args:
        loads: Windows of one or more runs on one GPU.
        prior: What is known before any of it: the datasheet's model, so that no kind has been seen.

    Raises:
        CaptureError: There are fewer than three mixtures below the power cap.
    """
    is_mixture = has_role(loads, WindowRole.MIXTURE)
    is_capped = is_mixture & (loads.problem.cap_w > 0)
    is_uncapped = is_mixture & ~is_capped
    if is_uncapped.sum() < _MIN_MIXTURES:
        raise CaptureError(
            f"there are {int(is_uncapped.sum())} mixtures below the power cap", "Give the test a larger budget."
        )
    model = singles_model(loads, prior)
    hidden = hidden_predictions(loads, model)
    changes = tuple(interventions(loads, hidden))
    unseen = tuple(unseen_kinds(loads, prior))
    metrics = {
        **_window_metrics(loads, hidden, is_uncapped, is_capped),
        **_intervention_metrics(changes),
        **_unseen_metrics(unseen),
        **_interval_metrics(loads, hidden, model, is_mixture),
        **_counts(loads, is_uncapped, is_capped, changes),
    }
    return Truth(metrics, loads, hidden, is_uncapped, is_capped, changes, unseen, model)


def truth_row(loads: LoadProblem, prior: DeviceProfile) -> dict[str, Any]:
    """A row of a result file: all windows of one run, and the profile that nothing was known beyond."""
    return {"profile": profile_to_dict(prior), **loads.to_dict()}


def recompute(rows: Sequence[Mapping[str, Any]]) -> Truth:
    """The test's figures from the rows of one or more result files.

    Raises:
        CaptureError: There are no rows, or too few mixtures in them.
        ProfileError: A row's profile is damaged.
    """
    if not rows:
        raise CaptureError("there are no rows to recompute the truth test from", "Give result files of the truth test.")
    loads = LoadProblem.from_dict(merged(rows))
    return truth(loads, profile_from_dict(rows[0]["profile"]).power_model)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of which ``hits`` of ``count`` were seen (Wilson, 1927)."""
    share, z2 = hits / count, Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return middle - half, middle + half


def _window_metrics(loads: LoadProblem, hidden: Hidden, is_uncapped: _Array, is_capped: _Array) -> dict[str, Metric]:
    problem = loads.problem

    def errors(predicted_j: _Array, rows: _Array) -> _Array:
        return np.asarray(np.abs(predicted_j - problem.energy_j)[rows] / problem.energy_j[rows])

    metrics = {
        "window_error_median_uncapped": _quantile(errors(hidden.mean_j, is_uncapped), 0.5),
        "window_error_p95_uncapped": _quantile(errors(hidden.mean_j, is_uncapped), 0.95),
        "window_error_max_uncapped": _quantile(errors(hidden.mean_j, is_uncapped), 1.0),
        "additive_error_median_uncapped": _quantile(errors(additive_j(loads), is_uncapped), 0.5),
        "mean_power_error_median_uncapped": _quantile(errors(mean_power_j(loads, is_uncapped), is_uncapped), 0.5),
    }
    cap_w = float(problem.cap_w.max())
    if is_capped.any():
        cap_j = cap_w * problem.length_s
        metrics |= {
            "window_error_median_capped": _quantile(errors(hidden.mean_j, is_capped), 0.5),
            "window_error_p95_capped": _quantile(errors(hidden.mean_j, is_capped), 0.95),
            "additive_error_median_capped": _quantile(errors(additive_j(loads), is_capped), 0.5),
            "mean_power_error_median_capped": _quantile(errors(mean_power_j(loads, is_capped), is_capped), 0.5),
            "cap_error_median_capped": _quantile(errors(cap_j, is_capped), 0.5),
            "cap_error_median_uncapped": _quantile(errors(cap_j, is_uncapped), 0.5),
        }
    return metrics


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


def _interval_metrics(loads: LoadProblem, hidden: Hidden, model: PowerModel, is_mixture: _Array) -> dict[str, Metric]:
    """Coverage of the hidden windows, and of a fit as in serving how wide its intervals are and what it resolves."""
    problem = loads.problem
    hits = int((np.abs(hidden.mean_j - problem.energy_j) <= Z95 * hidden.error_j)[is_mixture].sum())
    fit = mixtures_fit(loads, model)
    dynamic_j = fit.predict(problem).dynamic_j[is_mixture].sum(axis=0)
    value_j, error_j = fit.class_j(problem.units[is_mixture].sum(axis=0))
    ran = value_j > 0
    resolved = float(dynamic_j[fit.is_resolved].sum() / dynamic_j.sum())
    return {
        "coverage_windows": _share(hits, int(is_mixture.sum())),
        "resolved_energy_share": Metric(resolved, "1", n=int(ran.sum())),
        "interval_half_width_median": _quantile(Z95 * error_j[ran] / value_j[ran], 0.5),
        "fitted_window_error": Metric(float(fit.window_error), "1", n=int(is_mixture.sum())),
    }


def _counts(
    loads: LoadProblem, is_uncapped: _Array, is_capped: _Array, changes: Sequence[Intervention]
) -> dict[str, Metric]:
    counts = {
        "num_uncapped_mixtures": int(is_uncapped.sum()),
        "num_capped_mixtures": int(is_capped.sum()),
        "num_interventions": sum(not change.is_capped for change in changes),
        "num_kernel_kinds": len(loads.kinds),
        "num_quantized_kinds": len(loads.quantized),
        "num_runs": len(set(loads.run.tolist())),
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
