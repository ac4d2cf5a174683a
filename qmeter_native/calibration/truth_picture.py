"""The truth test as a picture: predicted against measured joules, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np

from qmeter_native.calibration.truth import Truth

__all__ = ["truth_picture"]

_PANEL: Final = 340
_MARGIN: Final = 64
_TOP: Final = 56
_BAND: Final = 0.05
_COLORS: Final = {"below the cap": "#1b6ca8", "at the cap": "#c8553d", "interventions": "#4a7c59", "unseen": "#7b5ea7"}


@dataclass(frozen=True, slots=True)
class _Series:
    """Points of one colour: measured, predicted, half of the prediction's or the measurement's interval, a title."""

    name: str
    measured: list[float]
    predicted: list[float]
    half: list[float]
    titles: list[str]


def truth_picture(truth: Truth, title: str) -> str:
    """An SVG document: mean power of hidden mixtures, changes by interventions, kinds never calibrated.

    Vertical lines are 95 % intervals: the predictions' of mixtures, the counter's own of interventions. The band is
    5 % of the measured figure.
    """
    panels = [
        ("Mixtures hidden from the fit", "W", _windows(truth)),
        ("Interventions: change of energy", "J", _interventions(truth)),
        ("Kinds never calibrated, a launch", "mJ", _unseen(truth)),
    ]
    drawn = [(name, unit, series) for name, unit, series in panels if any(len(line.measured) for line in series)]
    width = len(drawn) * (_PANEL + _MARGIN) + _MARGIN // 2
    height = _PANEL + _TOP + _MARGIN
    body = "".join(_panel(number, *panel) for number, panel in enumerate(drawn))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="#333"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{_MARGIN}" y="22" font-size="15">{escape(title)}</text>{body}</svg>\n'
    )


def _windows(truth: Truth) -> list[_Series]:
    series = {name: _Series(name, [], [], [], []) for name in ("below the cap", "at the cap")}
    for board in truth.boards:
        problem, hidden = board.loads.problem, board.hidden
        for name, rows in zip(series, (board.is_uncapped, board.is_capped), strict=True):
            length_s = problem.length_s[rows]
            series[name].measured.extend((problem.energy_j[rows] / length_s).tolist())
            series[name].predicted.extend((hidden.mean_j[rows] / length_s).tolist())
            series[name].half.extend((1.96 * hidden.error_j[rows] / length_s).tolist())
            series[name].titles.extend(board.loads.windows[row].group for row in rows.nonzero()[0])
    return list(series.values())


def _interventions(truth: Truth) -> list[_Series]:
    changes = [change for change in truth.interventions if not change.is_capped]
    return [
        _Series(
            "interventions",
            [change.measured_j for change in changes],
            [change.predicted_j for change in changes],
            [1.96 * change.measured_error_j for change in changes],
            [f"{change.group}: {change.changed}" for change in changes],
        )
    ]


def _unseen(truth: Truth) -> list[_Series]:
    kinds = truth.unseen
    measured, predicted = [kind.measured_j * 1e3 for kind in kinds], [kind.predicted_j * 1e3 for kind in kinds]
    return [_Series("unseen", measured, predicted, [0.0] * len(kinds), [kind.kind for kind in kinds])]


@dataclass(frozen=True, slots=True)
class _Axes:
    """A square panel whose two axes show the same range."""

    number: int
    low: float
    high: float

    @classmethod
    def of(cls, number: int, series: Sequence[_Series]) -> _Axes:
        """Around all points and zero."""
        values = [value for line in series for value in (*line.measured, *line.predicted, 0.0)]
        low, high = min(values) * 1.08, max(values) * 1.08
        return cls(number, low, high if high > low else low + 1.0)

    @property
    def left(self) -> int:
        """Of the panel, in pixels."""
        return _MARGIN + self.number * (_PANEL + _MARGIN)

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return round(self.left + (value - self.low) * _PANEL / (self.high - self.low), 1)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return round(_TOP + _PANEL - (value - self.low) * _PANEL / (self.high - self.low), 1)


def _panel(number: int, name: str, unit: str, series: Sequence[_Series]) -> str:
    axes = _Axes.of(number, series)
    points = "".join(_points(axes, unit, line) for line in series)
    counts = [f'<tspan fill="{_COLORS[line.name]}">{len(line.measured)} {line.name}</tspan>' for line in series]
    left, bottom = axes.left, _TOP + _PANEL
    return (
        f'<clipPath id="p{number}"><rect x="{left}" y="{_TOP}" width="{_PANEL}" height="{_PANEL}"/></clipPath>'
        f'<g clip-path="url(#p{number})">{_band(axes)}{points}</g>'
        f'<rect x="{left}" y="{_TOP}" width="{_PANEL}" height="{_PANEL}" fill="none" stroke="#bbb"/>'
        f'<text x="{left}" y="{_TOP - 8}">{escape(name)}: {" · ".join(counts)}</text>'
        f'<text x="{left + _PANEL}" y="{bottom + 32}" text-anchor="end">measured, {unit}</text>'
        f'<text x="{left + 6}" y="{_TOP + 16}">predicted, {unit}</text>' + _ticks_of(axes)
    )


def _band(axes: _Axes) -> str:
    """Where measured and predicted agree, and 5 % around it."""
    low, high = axes.low, axes.high
    corners = [(low, low * (1 - _BAND)), (0, 0), (high, high * (1 - _BAND)), (high, high * (1 + _BAND)), (0, 0)]
    points = " ".join(f"{axes.x(a)},{axes.y(b)}" for a, b in [*corners, (low, low * (1 + _BAND))])
    diagonal = f'x1="{axes.x(low)}" y1="{axes.y(low)}" x2="{axes.x(high)}" y2="{axes.y(high)}"'
    return f'<polygon points="{points}" fill="#f0ead6"/><line {diagonal} stroke="#999"/>'


def _points(axes: _Axes, unit: str, line: _Series) -> str:
    color, parts = _COLORS[line.name], []
    for measured, predicted, half, title in zip(line.measured, line.predicted, line.half, line.titles, strict=True):
        x, top, bottom = axes.x(measured), axes.y(predicted + half), axes.y(predicted - half)
        label = escape(f"{title}: measured {measured:.4g} {unit}, predicted {predicted:.4g} {unit}")
        parts.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{color}" stroke-opacity="0.5"/>')
        circle = f'<circle cx="{x}" cy="{axes.y(predicted)}" r="3" fill="{color}" fill-opacity="0.8">'
        parts.append(f"{circle}<title>{label}</title></circle>")
    return "".join(parts)


def _ticks_of(axes: _Axes) -> str:
    bottom, left = _TOP + _PANEL + 15, axes.left - 6
    return "".join(
        f'<text x="{axes.x(tick)}" y="{bottom}" text-anchor="middle">{tick:g}</text>'
        f'<text x="{left}" y="{axes.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in _ticks(axes.low, axes.high)
    )


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(float(factor * power) for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [float(number * step) for number in range(int(np.ceil(low / step)), int(high / step) + 1)]
