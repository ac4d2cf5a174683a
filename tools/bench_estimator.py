"""How long the energy estimator takes on a million kernels in a thousand windows, and how often its intervals hold.

The time is from raw arrays of kernels to joules by window and class: sharing time, building the problem, fitting,
predicting. The coverage is of made-up GPUs whose kernels' joules are known (`qmeter_native.calibration.synthetic`).

    python tools/bench_estimator.py
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.attribution.energy_fit import fit_energy  # noqa: E402
from qmeter_native.attribution.energy_problem import EnergyProblem  # noqa: E402
from qmeter_native.attribution.timeline import share_time  # noqa: E402
from qmeter_native.calibration.synthetic import KINDS, coverage, synthetic_model  # noqa: E402
from qmeter_native.model.power_model import EnergyMode  # noqa: E402
from qmeter_native.units import NS_PER_S  # noqa: E402
from tools.results import Metric, cpu_name, write_result  # noqa: E402

RESULT = ROOT / "docs" / "results" / "estimator-scale.json"
REPEATS = 5
NUM_KERNELS, NUM_WINDOWS, NUM_CLASSES = 1_000_000, 1_000, 300
CASES_PER_KIND = 50
Z95 = 1.96


def main() -> None:
    """Measure and write the result file."""
    seconds = [_estimate(seed) for seed in range(REPEATS)]
    found = coverage(CASES_PER_KIND)
    metrics = {
        "seconds_1e6": Metric.of_repeats(seconds, "s"),
        "coverage_synthetic": _proportion(*(sum(values) for values in zip(*found.values(), strict=True))),
        "num_synthetic_cases": Metric(float(CASES_PER_KIND * len(KINDS)), "1"),
        **{f"coverage_synthetic_{kind}": _proportion(*values) for kind, values in found.items()},
    }
    for key, metric in metrics.items():
        print(f"{key}: {metric.value:.4g} {metric.unit} [{metric.low}, {metric.high}]")
    write_result(
        RESULT,
        "estimator-scale",
        metrics,
        device=cpu_name(),
        command="python tools/bench_estimator.py",
        packages=("numpy",),
    )


def _estimate(seed: int) -> float:
    """Seconds from raw kernels to the joules of classes in windows."""
    rng = np.random.default_rng(seed)
    class_id = rng.integers(0, NUM_CLASSES, NUM_KERNELS)
    mean_ns = rng.lognormal(np.log(30_000), 0.7, NUM_CLASSES)
    length_ns = (mean_ns[class_id] * rng.lognormal(0, 0.05, NUM_KERNELS)).astype(np.int64)
    start_ns = np.cumsum(length_ns + rng.integers(500, 4_000, NUM_KERNELS)) - length_ns
    cuts_ns = np.linspace(0, start_ns[-1] + length_ns[-1], NUM_WINDOWS + 1).astype(np.int64)
    model = synthetic_model()
    work = rng.beta(1.0, 1.6, (NUM_CLASSES, len(model.features)))
    work = work * np.array([3.0e12, 6.0e12, 600e12, 1.0e12, 1.0]) * mean_ns[:, None] / NS_PER_S
    unit_j = work @ model.coefficient * rng.normal(1.0, 0.1, NUM_CLASSES)
    noise = rng.normal(1.0, 0.003, NUM_WINDOWS)
    before = time.perf_counter()
    problem = _problem(start_ns, start_ns + length_ns, class_id, cuts_ns, work)
    energy_j = (problem.energy_j + problem.units @ unit_j + model.active_w * problem.busy_s) * noise
    fit = fit_energy(replace(problem, energy_j=energy_j), model)
    fit.predict(problem)
    return time.perf_counter() - before


def _problem(
    start_ns: NDArray[Any], end_ns: NDArray[Any], class_id: NDArray[Any], cuts_ns: NDArray[Any], work: NDArray[Any]
) -> EnergyProblem:
    """Windows with idle energy alone, and who ran in them."""
    model = synthetic_model()
    launches, time_ns = np.zeros((2, NUM_WINDOWS * NUM_CLASSES))
    for part in share_time(start_ns, end_ns, cuts_ns):
        cell = part.window * NUM_CLASSES + class_id[part.row]
        launches += np.bincount(cell, part.length_ns / (end_ns[part.row] - start_ns[part.row]), len(launches))
        time_ns += np.bincount(cell, part.shared_ns, len(time_ns))
    time_s = time_ns.reshape(NUM_WINDOWS, NUM_CLASSES) / NS_PER_S
    length_s = np.diff(cuts_ns) / NS_PER_S
    return EnergyProblem(
        length_s=length_s,
        energy_j=model.idle_w * length_s,
        error_j=np.full(NUM_WINDOWS, 0.05),
        idle_w=np.full(NUM_WINDOWS, model.idle_w),
        busy_s=time_s.sum(axis=1),
        clock=np.ones(NUM_WINDOWS),
        cap_w=np.zeros(NUM_WINDOWS),
        units=launches.reshape(NUM_WINDOWS, NUM_CLASSES),
        time_s=time_s,
        features=model.features,
        work=work,
        modes=(EnergyMode.COUNTERS,) * NUM_CLASSES,
        is_fitted=np.ones(NUM_WINDOWS, bool),
    )


def _proportion(inside: int, count: int) -> Metric:
    """A proportion with Wilson's interval of 95 %."""
    part, weight = inside / count, Z95**2 / count
    middle = (part + weight / 2) / (1 + weight)
    half = Z95 * math.sqrt(part * (1 - part) / count + weight / (4 * count)) / (1 + weight)
    return Metric(part, "1", middle - half, middle + half, count)


if __name__ == "__main__":
    main()
