"""A roofline as a picture: FLOP/s over FLOP per byte, both logarithmic, as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Final

from qmeter_native.model.op_family import OpFamily
from qmeter_native.reporters.quantity import percent, quantity
from qmeter_native.roofline.ceilings import DRAM, DeviceCeilings
from qmeter_native.roofline.point import Bound, RooflinePoint
from qmeter_native.roofline.roofline import Roofline

__all__ = ["roofline_picture"]

_WIDTH: Final = 760
_HEIGHT: Final = 420
_MARGIN: Final = 64
_TOP: Final = 44
_LEGEND: Final = 44
_COLORS: Final = {OpFamily.GEMM: "#1b6ca8", OpFamily.ATTENTION: "#c8553d", OpFamily.MOE: "#7b5ea7"}
_OTHER_COLOR: Final = "#4a7c59"
_MEMORY_ROOFS: Final = {"dram_read": "DRAM", "l2_read": "L2"}
_MAX_RADIUS: Final = 22.0
_MIN_RADIUS: Final = 2.5
_LABELLED: Final = 0.04
"""Share of the time from which a point's name stands beside it."""
_NO_PEAK: Final = 1e15
"""FLOP/s up to which memory's roofs are drawn where no peak is known."""
_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_DECADES_BELOW: Final = 2
"""Decades that the picture shows below the lowest ridge's rate, if no point lies lower."""


@dataclass(frozen=True, slots=True)
class _Axes:
    """A panel with two logarithmic axes, in powers of ten.

    Attributes:
        x_low, x_high: FLOP per byte.
        y_low, y_high: FLOP a second.
    """

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, ceilings: DeviceCeilings, points: list[RooflinePoint]) -> _Axes:
        """Whole decades around all roofs and points."""
        ridges = [ridge for name in ceilings.types if (ridge := ceilings.ridge(name))]
        peaks = [ceilings.roofs[name].value for name in ceilings.types] or [_NO_PEAK]
        xs = [*ridges, 1.0, *(point.intensity for point in points if point.intensity)]
        ys = [*peaks, min(peaks) / 10**_DECADES_BELOW, *(point.flops_per_s for point in points if point.flops_per_s)]
        return cls(
            math.floor(math.log10(min(xs))),
            math.ceil(math.log10(max(xs)) + 0.3),
            math.floor(math.log10(min(ys))),
            math.ceil(math.log10(max(ys))),
        )

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return round(_MARGIN + (math.log10(value) - self.x_low) * _WIDTH / (self.x_high - self.x_low), 1)

    @property
    def slope(self) -> float:
        """Of a line of constant bytes a second, degrees clockwise."""
        return -math.degrees(math.atan2(_HEIGHT * (self.x_high - self.x_low), _WIDTH * (self.y_high - self.y_low)))

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return round(_TOP + _HEIGHT - (math.log10(value) - self.y_low) * _HEIGHT / (self.y_high - self.y_low), 1)


def roofline_picture(roofline: Roofline, title: str) -> str:
    """An SVG document: roofs as lines, points as circles whose area goes with their share of the time.

    Points without operations (norms, copies) are not on these axes; the legend says how much time they took.
    """
    drawn = [point for point in roofline.points if point.intensity and point.flops_per_s]
    axes = _Axes.around(roofline.ceilings, drawn)
    width, height = _WIDTH + 2 * _MARGIN, _HEIGHT + _TOP + _MARGIN + _LEGEND
    body = _grid(axes) + _roofs(axes, roofline.ceilings) + "".join(_circle(axes, point) for point in drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="#333"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{_MARGIN}" y="24" font-size="15">{escape(title)}</text>'
        f'<clipPath id="panel"><rect x="{_MARGIN}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/></clipPath>'
        f'<g clip-path="url(#panel)">{body}</g>'
        f'<rect x="{_MARGIN}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#bbb"/>'
        f"{_ticks(axes)}{_legend(roofline, drawn)}</svg>\n"
    )


def _grid(axes: _Axes) -> str:
    vertical = "".join(
        f'<line x1="{axes.x(10.0**power)}" y1="{_TOP}" x2="{axes.x(10.0**power)}" y2="{_TOP + _HEIGHT}" stroke="#eee"/>'
        for power in range(int(axes.x_low), int(axes.x_high) + 1)
    )
    horizontal = "".join(
        f'<line x1="{_MARGIN}" y1="{axes.y(10.0**power)}" x2="{_MARGIN + _WIDTH}" y2="{axes.y(10.0**power)}" '
        'stroke="#eee"/>'
        for power in range(int(axes.y_low), int(axes.y_high) + 1)
    )
    return vertical + horizontal


def _roofs(axes: _Axes, ceilings: DeviceCeilings) -> str:
    """Slanted lines up to the highest peak, and a flat one for each distinct peak, from its ridge on."""
    peaks: dict[float, list[str]] = {}
    for name in ceilings.types:
        peaks.setdefault(ceilings.roofs[name].value, []).append(name)
    dashes = {True: "", False: ' stroke-dasharray="6 4"'}
    parts = []
    for name, label in _MEMORY_ROOFS.items():
        roof = ceilings.roofs.get(name)
        if roof is None:
            continue
        left, right = 10.0**axes.x_low, max(peaks, default=_NO_PEAK) / roof.value
        parts.append(
            f'<line x1="{axes.x(left)}" y1="{axes.y(left * roof.value)}" x2="{axes.x(right)}" '
            f'y2="{axes.y(right * roof.value)}" stroke="#555"{dashes[roof.is_measured]}/>'
        )
        at = max(10.0 ** (axes.x_low + 0.1), 10.0 ** (axes.y_low + 0.1) / roof.value)
        x, y = axes.x(at), axes.y(at * roof.value)
        parts.append(
            f'<text x="{x}" y="{y - 5:.1f}" transform="rotate({axes.slope:.1f} {x} {y})">{label} '
            f"{quantity(roof.value, roof.unit)}</text>"
        )
    for peak, names in peaks.items():
        roof, ridge = ceilings.roofs[names[0]], ceilings.ridge(names[0], DRAM)
        left = axes.x(ridge) if ridge else _MARGIN
        parts.append(
            f'<line x1="{left}" y1="{axes.y(peak)}" x2="{_MARGIN + _WIDTH}" y2="{axes.y(peak)}" '
            f'stroke="#555"{dashes[roof.is_measured]}/>'
            f'<text x="{_MARGIN + _WIDTH - 6}" y="{axes.y(peak) - 4:.1f}" text-anchor="end">'
            f"{', '.join(names)} {quantity(peak, roof.unit)}</text>"
        )
    return "".join(parts)


def _circle(axes: _Axes, point: RooflinePoint) -> str:
    run = point.run
    radius = max(_MIN_RADIUS, _MAX_RADIUS * math.sqrt(run.time_share))
    role = f" ({run.role})" if run.role and run.role != run.label else ""
    rate = quantity(point.flops_per_s or 0.0, "FLOP/s")
    label = (
        f"{run.label}{role}: {percent(run.time_share)} % of the time, {rate}, "
        f"{percent(point.fraction.value or 0.0)} % of its roof, bound by {point.bound.value}"
    )
    color = _COLORS.get(run.op_family, _OTHER_COLOR)
    x, y = axes.x(point.intensity or 1.0), axes.y(point.flops_per_s or 1.0)
    circle = (
        f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="{color}" fill-opacity="0.45" stroke="{color}">'
        f"<title>{escape(label)}</title></circle>"
    )
    if run.time_share < _LABELLED:
        return circle
    return (
        f'{circle}<text x="{x + radius + 4:.1f}" y="{y + 4:.1f}" fill="{color}">{escape(run.role or run.label)}</text>'
    )


def _ticks(axes: _Axes) -> str:
    bottom = _TOP + _HEIGHT
    x = "".join(
        f'<text x="{axes.x(10.0**power)}" y="{bottom + 15}" text-anchor="middle">{10.0**power:g}</text>'
        for power in range(int(axes.x_low), int(axes.x_high) + 1)
    )
    y = "".join(
        f'<text x="{_MARGIN - 6}" y="{axes.y(10.0**power) + 4:.1f}" text-anchor="end">'
        f"{10 ** (power % 3)} {_PREFIXES[power // 3]}</text>"
        for power in range(int(axes.y_low), int(axes.y_high) + 1)
    )
    return (
        f'{x}{y}<text x="{_MARGIN + _WIDTH}" y="{bottom + 32}" text-anchor="end">FLOP per byte of DRAM</text>'
        f'<text x="{_MARGIN + 6}" y="{_TOP + 15}">FLOP/s</text>'
    )


def _legend(roofline: Roofline, drawn: list[RooflinePoint]) -> str:
    """What colours and lines mean, and the time that is not in the picture."""
    y = _TOP + _HEIGHT + 52
    families = dict.fromkeys(point.run.op_family for point in drawn)
    names = {_COLORS.get(family, _OTHER_COLOR): family.value for family in families}
    keys = " · ".join(f'<tspan fill="{color}">● {name}</tspan>' for color, name in names.items())
    is_mixed = {roof.is_measured for roof in roofline.ceilings.roofs.values()}
    lines = {frozenset({True}): "roofs measured", frozenset({False}): "roofs by datasheet (dashed)"}
    told = lines.get(frozenset(is_mixed), "roofs measured, dashed by datasheet")
    hidden = [point for point in roofline.points if not (point.intensity and point.flops_per_s)]
    unseen = sum(point.run.time_share for point in hidden)
    nowhere = sum(point.run.time_share for point in hidden if point.bound is Bound.UNKNOWN)
    text = f"{told}; area goes with time" if drawn else told
    if hidden:
        text += (
            f"; {percent(unseen)} % of the time is not drawn: no operations, or ({percent(nowhere)} %) no roof known"
        )
    return f'<text x="{_MARGIN}" y="{y}">{keys}</text><text x="{_MARGIN}" y="{y + 18}">{escape(text)}</text>'
