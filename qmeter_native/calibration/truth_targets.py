"""What the truth test's figures should be, and whether they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from qmeter_native.calibration.result_document import Metric

__all__ = ["TARGETS", "Target", "Verdict", "verdicts"]


@dataclass(frozen=True, slots=True)
class Target:
    """One figure's target.

    Attributes:
        metric: Its name in the result file.
        label: For people.
        wanted: The target, for people.
        is_met: Whether a figure meets it, given all figures.
        is_count: Whether the figure is a count, else a fraction.
    """

    metric: str
    label: str
    wanted: str
    is_met: Callable[[Metric, Mapping[str, Metric]], bool]
    is_count: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure beside its target; ``metric`` is None where it could not be measured."""

    target: Target
    metric: Metric | None
    is_met: bool


def _at_most(limit: float) -> Callable[[Metric, Mapping[str, Metric]], bool]:
    return lambda metric, _: metric.value <= limit


def _at_least(limit: float) -> Callable[[Metric, Mapping[str, Metric]], bool]:
    return lambda metric, _: metric.value >= limit


def _worse_than(name: str) -> Callable[[Metric, Mapping[str, Metric]], bool]:
    """A baseline must do worse than the estimator's figure ``name``."""
    return lambda metric, metrics: name in metrics and metric.value > metrics[name].value


def _is_intervention_met(metric: Metric, metrics: Mapping[str, Metric]) -> bool:
    """5 %, or as many predictions within the counter's own 95 % interval as chance lets expect."""
    within = metrics.get("intervention_within_counter_share")
    return metric.value <= 0.05 or (within is not None and within.high is not None and within.high >= 0.95)


def _is_covering(metric: Metric, _: Mapping[str, Metric]) -> bool:
    """Not rejected: the upper end of Wilson's interval reaches the nominal share."""
    return metric.high is not None and metric.high >= 0.95


TARGETS: Final = (
    Target("window_error_median_uncapped", "mixtures below the cap, median error", "≤ 2 %", _at_most(0.02)),
    Target("window_error_p95_uncapped", "  95th percentile", "≤ 5 %", _at_most(0.05)),
    Target(
        "additive_error_median_uncapped",
        "  sum of isolated energies",
        "worse",
        _worse_than("window_error_median_uncapped"),
    ),
    Target(
        "mean_power_error_median_uncapped",
        "  mean power × time",
        "worse",
        _worse_than("window_error_median_uncapped"),
    ),
    Target("cap_error_median_uncapped", "  cap × time", "worse", _worse_than("window_error_median_uncapped")),
    Target("window_error_median_capped", "mixtures at the cap, median error", "≤ 2 %", _at_most(0.02)),
    Target("intervention_error_median", "interventions, median error of ΔE", "≤ 5 %", _is_intervention_met),
    Target("unseen_error_median", "kinds never calibrated, median error", "≤ 7 %", _at_most(0.07)),
    Target("unseen_error_p95", "  95th percentile", "≤ 15 %", _at_most(0.15)),
    Target("resolved_energy_share", "resolved share of energy", "≥ 90 %", _at_least(0.9)),
    Target("interval_half_width_median", "intervals of kinds, median half-width", "≤ 8 %", _at_most(0.08)),
    Target("coverage_windows", "windows in their 95 % intervals", "not rejected", _is_covering),
    Target(
        "coverage_synthetic",
        "made-up kernels in their 95 % intervals",
        "93 to 99 %",
        lambda metric, _: 0.93 <= metric.value <= 0.99,
    ),
    Target("num_uncapped_mixtures", "mixtures below the cap", "≥ 30", _at_least(30), is_count=True),
    Target("num_capped_mixtures", "mixtures at the cap", "≥ 10", _at_least(10), is_count=True),
    Target("num_kernel_kinds", "kinds of kernels", "≥ 12", _at_least(12), is_count=True),
    Target("num_quantized_kinds", "  of these quantized products", "≥ 4", _at_least(4), is_count=True),
)
"""In the order in which they are shown."""


def verdicts(metrics: Mapping[str, Metric]) -> list[Verdict]:
    """Every target's verdict; a figure that is missing misses its target."""
    found = [(target, metrics.get(target.metric)) for target in TARGETS]
    return [Verdict(target, m, m is not None and target.is_met(m, metrics)) for target, m in found]
