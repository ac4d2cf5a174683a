"""Figures as text. One SI prefix a column, so that a column can be compared by eye."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["Scale", "bar", "count", "percent", "quantity", "scale_of"]

_PREFIXES: Final = (
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
)
_SIGNIFICANT: Final = 4
_BLOCKS: Final = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Scale:
    """How a column of figures is written: divided by ``factor``, in ``unit``, with ``decimals``."""

    factor: float
    unit: str
    decimals: int

    def text(self, value: float) -> str:
        """``value`` without its unit; a figure too small for the decimals is ``<0.1``, never a false zero."""
        scaled = value / self.factor
        text = f"{scaled:,.{self.decimals}f}"
        if value and not text.strip("-0.,"):
            return f"{'>-' if value < 0 else '<'}{10.0**-self.decimals:.{self.decimals}f}"
        return text


def scale_of(values: Iterable[float | None], unit: str) -> Scale:
    """The scale at which the largest of ``values`` (in ``unit``, an SI base unit) shows four significant digits.

    Seconds are never grouped above 1 s. Without any value other than zero the scale is the plain unit.
    """
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if not largest:
        return Scale(1.0, unit, 0)
    prefixes = [entry for entry in _PREFIXES if unit != "s" or entry[0] <= 1.0]
    # 0.9999 of the factor: 999.96 ms would otherwise be written 1000.0 ms.
    factor, prefix = next((entry for entry in prefixes if largest >= 0.9999 * entry[0]), prefixes[-1])
    digits = len(str(int(largest / factor * 1.00005)))
    return Scale(factor, prefix + unit, max(0, min(3, _SIGNIFICANT - digits)))


def quantity(value: float, unit: str) -> str:
    """One figure with its unit: ``5.432 kJ``."""
    if 0 < abs(value) < _PREFIXES[-1][0] / 1_000:
        return f"{value:.0e} {unit}"  # what is left over by rounding is seen, and seen to be nothing
    scale = scale_of([value], unit)
    return f"{scale.text(value)} {scale.unit}"


def count(value: int, noun: str = "") -> str:
    """A count with grouped thousands, and what is counted: ``1 window``, ``2 windows``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}" if noun else f"{value:,}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal and no sign: ``12.3``."""
    return Scale(0.01, "%", 1).text(fraction)


def bar(fraction: float, width: int) -> str:
    """A bar of at most ``width`` characters; anything above zero shows at least its thinnest line."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    if fraction > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BLOCKS[rest] if rest else "")
