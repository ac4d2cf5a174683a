"""A benchmark as a picture: speed over cuBLAS by number of tokens, one panel a format and shape, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from qmeter_native.model.kernel_benchmark import BenchmarkRow, KernelBenchmark

__all__ = ["benchmark_picture"]

_WIDTH: Final = 340
_HEIGHT: Final = 240
_MARGIN: Final = 64
_TOP: Final = 56
_COLUMNS: Final = 3
_REFERENCE: Final = "cublas"
_COLORS: Final = ("#1b6ca8", "#c8553d", "#4a7c59", "#7b5ea7", "#b8860b", "#2f8f9d", "#a23b72", "#6b705c", "#8d5524")
_OURS: Final = ("#111", "#d4a017")
_MAX_LABELS: Final = 8
_LEGEND_LINE: Final = 16


@dataclass(frozen=True, slots=True)
class _Panel:
    """Rows of one format and shape, and the number of its place."""

    number: int
    title: str
    rows: tuple[BenchmarkRow, ...]

    @property
    def left(self) -> int:
        return _MARGIN + self.number % _COLUMNS * (_WIDTH + _MARGIN)

    @property
    def top(self) -> int:
        return _TOP + self.number // _COLUMNS * (_HEIGHT + _MARGIN)


def benchmark_picture(benchmark: KernelBenchmark) -> str:
    """An SVG document.

    Lines are the time of cuBLAS in 16 bits over that of each kernel, above 1 where it is faster; vertical lines are
    95 % intervals; the dashed line is what the roof allows. Formats and shapes without cuBLAS are left out.
    """
    panels = _panels(benchmark.rows)
    kernels = _in_order(panels)
    rows = max(1, math.ceil(len(panels) / _COLUMNS))
    width = _COLUMNS * (_WIDTH + _MARGIN) + _MARGIN // 2
    legend_top = _TOP + rows * (_HEIGHT + _MARGIN)
    height = legend_top + _LEGEND_LINE * (len(kernels) + 2)
    title = f"{benchmark.device.name}: speed over cuBLAS in 16 bits, by tokens ({benchmark.date})"
    body = "".join(_drawn(panel, kernels) for panel in panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="#333"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{_MARGIN}" y="22" font-size="15">{escape(title)}</text>{body}{_legend(kernels, legend_top)}</svg>\n'
    )


def _panels(rows: Sequence[BenchmarkRow]) -> list[_Panel]:
    groups: dict[tuple[object, ...], list[BenchmarkRow]] = {}
    for row in rows:
        if row.time_s.value is not None:
            groups.setdefault((row.format, row.n, row.k, row.dtype), []).append(row)
    kept = [(key, group) for key, group in groups.items() if any(row.kernel == _REFERENCE for row in group)]
    return [
        _Panel(number, f"{key[0]}, N {key[1]}, K {key[2]}, {key[3]}", tuple(group))
        for number, (key, group) in enumerate(kept)
    ]


def _in_order(panels: Sequence[_Panel]) -> dict[str, str]:
    """Colours by kernel, ours first."""
    names = dict.fromkeys(row.kernel for panel in panels for row in panel.rows if row.kernel != _REFERENCE)
    ours = [name for name in names if name.startswith("qmeter.")]
    others = [name for name in names if name not in ours]
    colours = {name: _OURS[number % len(_OURS)] for number, name in enumerate(ours)}
    return colours | {name: _COLORS[number % len(_COLORS)] for number, name in enumerate(others)}


def _drawn(panel: _Panel, kernels: dict[str, str]) -> str:
    reference = {row.m: row.time_s.value or 0.0 for row in panel.rows if row.kernel == _REFERENCE}
    rows = [row for row in panel.rows if row.kernel != _REFERENCE and row.m in reference]
    ideal = {row.m: reference[row.m] / row.roof_s for row in rows if row.roof_s}
    highest = max([1.0, *ideal.values(), *(reference[row.m] / (row.time_s.value or math.inf) for row in rows)])
    axes = _Axes.of(panel, sorted(reference), highest * 1.08)
    lines = [_polyline(axes, sorted(ideal.items()), "#999", "4 3")] if ideal else []
    lines += [_line(axes, [row for row in rows if row.kernel == name], reference, kernels[name]) for name in kernels]
    frame = f'<rect x="{panel.left}" y="{panel.top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#bbb"/>'
    one = f'<line x1="{panel.left}" y1="{axes.y(1)}" x2="{panel.left + _WIDTH}" y2="{axes.y(1)}" stroke="#ddd"/>'
    title = f'<text x="{panel.left}" y="{panel.top - 8}">{escape(panel.title)}</text>'
    return one + "".join(lines) + frame + title + axes.ticks()


@dataclass(frozen=True, slots=True)
class _Axes:
    """Tokens by their logarithm, speed from zero."""

    panel: _Panel
    tokens: tuple[int, ...]
    low: float
    high: float
    highest: float

    @classmethod
    def of(cls, panel: _Panel, tokens: Sequence[int], highest: float) -> _Axes:
        """Around all numbers of tokens."""
        low, high = math.log2(tokens[0]), math.log2(tokens[-1])
        return cls(panel, tuple(tokens), low - 0.3, high + 0.3, highest)

    def x(self, m: int) -> float:
        """Pixels from the left."""
        return round(self.panel.left + (math.log2(m) - self.low) * _WIDTH / (self.high - self.low), 1)

    def y(self, speed: float) -> float:
        """Pixels from the top."""
        return round(self.panel.top + _HEIGHT * (1 - speed / self.highest), 1)

    def ticks(self) -> str:
        """Labels of both axes."""
        bottom, left = self.panel.top + _HEIGHT + 15, self.panel.left - 6
        labels = self.tokens[:: 1 + len(self.tokens) // _MAX_LABELS]
        below = "".join(f'<text x="{self.x(m)}" y="{bottom}" text-anchor="middle">{m}</text>' for m in labels)
        step = next(step for step in (0.25, 0.5, 1, 2, 5, 10, math.inf) if self.highest / step <= 6)
        count = 0 if math.isinf(step) else int(self.highest / step)
        values = [step * number for number in range(count + 1)]
        return below + "".join(
            f'<text x="{left}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}×</text>' for value in values
        )


def _line(axes: _Axes, rows: Sequence[BenchmarkRow], reference: dict[int, float], color: str) -> str:
    points, parts = [], []
    for row in sorted(rows, key=lambda row: row.m):
        time_s = row.time_s
        if not time_s.value:
            continue
        speed, x = reference[row.m] / time_s.value, axes.x(row.m)
        points.append((row.m, speed))
        if time_s.low and time_s.high:
            top, bottom = axes.y(reference[row.m] / time_s.low), axes.y(reference[row.m] / time_s.high)
            parts.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{color}" stroke-opacity="0.5"/>')
        label = escape(f"{row.kernel}, M {row.m}: {time_s.value * 1e6:.4g} µs, {speed:.3g}× cuBLAS")
        circle = f'<circle cx="{x}" cy="{axes.y(speed)}" r="3" fill="{color}" fill-opacity="0.8">'
        parts.append(f"{circle}<title>{label}</title></circle>")
    return _polyline(axes, points, color) + "".join(parts)


def _polyline(axes: _Axes, points: Sequence[tuple[int, float]], color: str, dashes: str = "none") -> str:
    path = " ".join(f"{axes.x(m)},{axes.y(speed)}" for m, speed in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-dasharray="{dashes}"/>'


def _legend(kernels: dict[str, str], top: int) -> str:
    entries = [*kernels.items(), ("what the roof allows (dashed)", "#999")]
    return "".join(
        f'<rect x="{_MARGIN}" y="{top + _LEGEND_LINE * number}" width="12" height="8" fill="{color}"/>'
        f'<text x="{_MARGIN + 20}" y="{top + _LEGEND_LINE * number + 8}">{escape(name)}</text>'
        for number, (name, color) in enumerate(entries)
    )
