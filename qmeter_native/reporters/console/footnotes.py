"""Why a figure is missing, or what weakens it, said once under the table."""

from __future__ import annotations

from typing import Final

from qmeter_native.model.estimate import Estimate
from qmeter_native.reporters.quantity import Scale

__all__ = ["MISSING", "Footnotes"]

MISSING: Final = "–"
_SUPERSCRIPT: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Footnotes:
    """Numbers reasons in the order in which they are first given."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str | None) -> str:
        """The number of ``reason`` as a superscript; empty if there is none."""
        if not reason:
            return ""
        return str(self._numbers.setdefault(reason, len(self._numbers) + 1)).translate(_SUPERSCRIPT)

    def missing(self, reason: str | None) -> str:
        """A dash that points to its reason."""
        return MISSING + self.mark(reason)

    def estimate(self, estimate: Estimate, scale: Scale) -> str:
        """The figure at ``scale``, or the dash; either points to its reason."""
        if estimate.value is None:
            return self.missing(estimate.reason)
        return scale.text(estimate.value) + self.mark(estimate.reason)

    def lines(self) -> list[str]:
        """One line a reason, each with its number."""
        return [f"{str(number).translate(_SUPERSCRIPT)} {reason}" for reason, number in self._numbers.items()]
