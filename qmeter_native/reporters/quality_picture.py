"""What methods cost and save as a picture: change of bits per byte over bits per weight, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from qmeter_native.model.trial import Trial

__all__ = ["quality_picture"]

_WIDTH: Final = 640
_HEIGHT: Final = 400
_MARGIN: Final = 70
_TOP: Final = 48
_COLORS: Final = {"cache rounded": "#4a7c59", "weights rounded": "#1b6ca8", "weights and inputs rounded": "#c8553d"}
_LINE: Final = 13
"""Pixels from a name to the next."""
_CLUSTER: Final = 60
"""Pixels within which points have their names in one column."""
_LEADER: Final = 26
"""Pixels from the last point of a column to its names."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A method: bits per weight, change of bits per byte with its ends, name, what is rounded (of `_COLORS`)."""

    bits: float
    change: float
    low: float
    high: float
    name: str
    rounded: str


@dataclass(frozen=True, slots=True)
class _Axes:
    """A panel with two linear axes, from 0 on."""

    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, points: Sequence[_Point]) -> _Axes:
        """Around all intervals and no change."""
        high = max((point.high for point in points), default=0.0)
        low = min(0.0, *(point.low for point in points)) if points else 0.0
        room = 0.08 * (high - low) or 1e-3
        return cls(max((point.bits for point in points), default=16.0) * 1.12, low - room, high + room)

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return round(_MARGIN + value * _WIDTH / self.x_high, 1)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return round(_TOP + _HEIGHT - (value - self.y_low) * _HEIGHT / (self.y_high - self.y_low), 1)


def quality_picture(trials: Sequence[Trial], title: str) -> str:
    """An SVG document: a point a method, with the paired 95 % interval; the line is the baseline.

    Methods without a figure are left out.
    """
    points = sorted((point for trial in trials if (point := _point(trial))), key=lambda point: point.bits)
    axes = _Axes.around(points)
    width, height = _WIDTH + 2 * _MARGIN, _HEIGHT + _TOP + _MARGIN
    line = f'<line x1="{_MARGIN}" y1="{axes.y(0)}" x2="{_MARGIN + _WIDTH}" y2="{axes.y(0)}" stroke="#999"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="#333"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{_MARGIN}" y="22" font-size="15">{escape(title)}</text>'
        f'<text x="{_MARGIN}" y="40">bits per byte, change against the baseline: {_legend()}</text>'
        f"{line}{_names(axes, points)}{_circles(axes, points)}"
        f'<rect x="{_MARGIN}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#bbb"/>'
        f'<text x="{_MARGIN + _WIDTH}" y="{_TOP + _HEIGHT + 34}" text-anchor="end">bits per weight</text>'
        f"{_ticks_of(axes)}</svg>\n"
    )


def _point(trial: Trial) -> _Point | None:
    bits, change = trial.size.bits_per_weight.value, trial.quality.bits_per_byte_change
    if bits is None or change.value is None:
        return None
    low = change.value if change.low is None else change.low
    high = change.value if change.high is None else change.high
    return _Point(bits, change.value, low, high, trial.method, _rounded(trial.scheme))


def _rounded(scheme: str) -> str:
    """What a scheme rounds: its name begins ``W{w}A{a}``, or with ``W16A16`` and the cache's bits."""
    cache, weights, both = _COLORS
    return cache if scheme.startswith("W16A16") else weights if "A16" in scheme else both


def _legend() -> str:
    return " · ".join(f'<tspan fill="{color}">{name}</tspan>' for name, color in _COLORS.items())


def _circles(axes: _Axes, points: Sequence[_Point]) -> str:
    parts = []
    for point in points:
        color, x, y = _COLORS[point.rounded], axes.x(point.bits), axes.y(point.change)
        label = escape(f"{point.name}: {point.bits:.2f} bits per weight, {point.change:+.4f} bits per byte")
        parts.append(
            f'<line x1="{x}" y1="{axes.y(point.low)}" x2="{x}" y2="{axes.y(point.high)}" stroke="{color}" '
            f'stroke-opacity="0.5"/><circle cx="{x}" cy="{y}" r="3.5" fill="{color}" fill-opacity="0.8">'
            f"<title>{label}</title></circle>"
        )
    return "".join(parts)


def _names(axes: _Axes, points: Sequence[_Point]) -> str:
    """Columns of names beside points that are close to one another, each with a line to its point."""
    clusters: list[list[_Point]] = []
    for point in points:
        if clusters and axes.x(point.bits) - axes.x(clusters[-1][0].bits) <= _CLUSTER:
            clusters[-1].append(point)
        else:
            clusters.append([point])
    return "".join(_column(axes, cluster) for cluster in clusters)


def _column(axes: _Axes, cluster: Sequence[_Point]) -> str:
    ordered = sorted(cluster, key=lambda point: -point.change)
    left, parts = max(axes.x(point.bits) for point in cluster) + _LEADER, []
    for point, y in zip(ordered, _apart([axes.y(point.change) for point in ordered]), strict=True):
        color = _COLORS[point.rounded]
        parts.append(
            f'<line x1="{axes.x(point.bits)}" y1="{axes.y(point.change)}" x2="{left - 3:.1f}" y2="{y:.1f}" '
            f'stroke="{color}" stroke-opacity="0.25"/>'
            f'<text x="{left:.1f}" y="{y + 4:.1f}" fill="{color}">{escape(point.name)}</text>'
        )
    return "".join(parts)


def _apart(wanted: Sequence[float]) -> list[float]:
    """Heights near those wanted, from the top down, a line apart, above the panel's lower edge."""
    heights: list[float] = []
    for height in wanted:
        heights.append(max(height, heights[-1] + _LINE) if heights else height)
    limit = float(_TOP + _HEIGHT - _LINE // 2)
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], limit)
        limit = heights[index] - _LINE
    return heights


def _ticks_of(axes: _Axes) -> str:
    bottom = _TOP + _HEIGHT + 15
    x = "".join(
        f'<text x="{axes.x(tick)}" y="{bottom}" text-anchor="middle">{tick:g}</text>' for tick in _ticks(0, axes.x_high)
    )
    y = "".join(
        f'<text x="{_MARGIN - 6}" y="{axes.y(tick) + 4:.1f}" text-anchor="end">{tick:+g}</text>'
        for tick in _ticks(axes.y_low, axes.y_high)
    )
    return x + y


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
