"""Windows of loads with what was measured in them: an energy problem, and rows that anyone can recompute from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.calibration.load_window import LoadWindow
from qmeter_native.model.power_model import EnergyMode, PowerFeature

__all__ = ["LoadProblem", "fitted", "merged", "selected"]

_Array = NDArray[Any]
_PER_WINDOW = ("length_s", "energy_j", "error_j", "idle_w", "busy_s", "clock", "cap_w")
"""Arrays of `EnergyProblem` with one number a window."""


@dataclass(frozen=True, slots=True)
class LoadProblem:
    """Windows (W) of loads of known kinds (C) on one device.

    Attributes:
        problem: What the estimator sees; its classes are the kinds, in order.
        windows: The plan's window of each row.
        kinds: Names of the kinds.
        quantized: Of these, the matrix products with weights of 8 bits or less.
        temperature_c: float64 (W,), mean; NaN where it was not read.
        throttled: float64 (W,), part of the window in which the power limit held clocks down.
        start_s: float64 (W,), when each began, after the first.
        run: Number of the run that each window is of, int64 (W,).
    """

    problem: EnergyProblem
    windows: tuple[LoadWindow, ...]
    kinds: tuple[str, ...]
    quantized: frozenset[str]
    temperature_c: _Array
    throttled: _Array
    start_s: _Array
    run: _Array

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: ``kinds`` with their work and ``windows`` with what was measured; `from_dict` reads it."""
        problem = self.problem
        kinds = {
            name: {
                "mode": problem.modes[column].value,
                "quantized": name in self.quantized,
                "work": dict(zip([f.value for f in problem.features], problem.work[column].tolist(), strict=True)),
            }
            for column, name in enumerate(self.kinds)
        }
        return {"kinds": kinds, "windows": [self._row(number) for number in range(len(self.windows))]}

    def _row(self, number: int) -> dict[str, Any]:
        problem = self.problem
        is_run = problem.units[number] > 0
        names = [name for name, ran in zip(self.kinds, is_run, strict=True) if ran]
        temperature = float(self.temperature_c[number])
        return {
            "run": int(self.run[number]),
            "start_s": round(float(self.start_s[number]), 3),
            **{name: float(getattr(problem, name)[number]) for name in _PER_WINDOW},
            **self._seen(number, names),
            "temperature_c": None if np.isnan(temperature) else round(temperature, 2),
            "throttled": round(float(self.throttled[number]), 5),
            "units": dict(zip(names, problem.units[number, is_run].tolist(), strict=True)),
            "time_s": dict(zip(names, problem.time_s[number, is_run].tolist(), strict=True)),
            "window": self.windows[number].to_dict(),
        }

    def _seen(self, number: int, names: Sequence[str]) -> dict[str, Any]:
        """What the sensor saw of a window, where it does not see all alike."""
        read = self.problem.as_read()
        if read is self.problem:
            return {}
        units = [float(read.units[number, self.kinds.index(name)]) for name in names]
        return {"seen_busy_s": float(read.busy_s[number]), "seen_units": dict(zip(names, units, strict=True))}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> LoadProblem:
        """Inverse of `to_dict`; all windows are fitted."""
        kinds, rows = document["kinds"], document["windows"]
        features = tuple(
            feature for feature in PowerFeature if any(feature.value in kind["work"] for kind in kinds.values())
        )
        is_seen = all("seen_units" in row for row in rows)
        problem = EnergyProblem(
            **{name: np.array([row[name] for row in rows], float) for name in _PER_WINDOW},
            units=_by_kind(rows, "units", kinds),
            time_s=_by_kind(rows, "time_s", kinds),
            features=features,
            work=np.array([[kind["work"].get(f.value, 0.0) for f in features] for kind in kinds.values()], float),
            modes=tuple(EnergyMode(kind["mode"]) for kind in kinds.values()),
            is_fitted=np.ones(len(rows), bool),
            seen_units=_by_kind(rows, "seen_units", kinds) if is_seen else None,
            seen_busy_s=np.array([row["seen_busy_s"] for row in rows], float) if is_seen else None,
        )
        temperatures = [np.nan if row["temperature_c"] is None else row["temperature_c"] for row in rows]
        return cls(
            problem=problem,
            windows=tuple(LoadWindow.from_dict(row["window"]) for row in rows),
            kinds=tuple(kinds),
            quantized=frozenset(name for name, kind in kinds.items() if kind["quantized"]),
            temperature_c=np.array(temperatures, float),
            throttled=np.array([row["throttled"] for row in rows], float),
            start_s=np.array([row["start_s"] for row in rows], float),
            run=np.array([row["run"] for row in rows], np.int64),
        )


def _by_kind(rows: Sequence[Mapping[str, Any]], name: str, kinds: Iterable[str]) -> _Array:
    """A quantity of each kind in each window; 0 for those that did not run."""
    return np.array([[row[name].get(kind, 0.0) for kind in kinds] for row in rows], float)


def merged(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The documents of several runs of one GPU as one: runs are numbered anew, work is the runs' mean."""
    kinds: dict[str, Any] = {}
    windows: list[dict[str, Any]] = []
    num_runs = 0
    for document in documents:
        runs = sorted({row["run"] for row in document["windows"]})
        number = {run: num_runs + position for position, run in enumerate(runs)}
        windows += [{**row, "run": number[row["run"]]} for row in document["windows"]]
        num_runs += len(runs)
        kinds.update({name: kind for name, kind in document["kinds"].items() if name not in kinds})
    for name, kind in kinds.items():
        works = [document["kinds"][name]["work"] for document in documents if name in document["kinds"]]
        kinds[name] = {**kind, "work": {key: float(np.mean([work[key] for work in works])) for key in works[0]}}
    return {"kinds": kinds, "windows": windows}


def selected(problem: EnergyProblem, windows: _Array, classes: _Array | None = None) -> EnergyProblem:
    """Only some windows, and only some classes: masks or positions."""
    chosen = np.arange(problem.num_classes) if classes is None else np.arange(problem.num_classes)[classes]
    return replace(
        problem,
        **{name: getattr(problem, name)[windows] for name in (*_PER_WINDOW, "is_fitted")},
        units=problem.units[windows][:, chosen],
        seen_units=None if problem.seen_units is None else problem.seen_units[windows][:, chosen],
        seen_busy_s=None if problem.seen_busy_s is None else problem.seen_busy_s[windows],
        time_s=problem.time_s[windows][:, chosen],
        work=problem.work[chosen],
        modes=tuple(problem.modes[column] for column in chosen),
    )


def fitted(problem: EnergyProblem, is_fitted: _Array) -> EnergyProblem:
    """The same windows, of which a fit may see those of a mask."""
    return replace(problem, is_fitted=np.asarray(is_fitted, bool))
