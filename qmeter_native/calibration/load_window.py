"""A window of load: which kernels run in it, how often, how long; its JSON is the name of its range in a capture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Final

__all__ = ["PILOT_RANGE", "LoadWindow", "WindowRole"]

PILOT_RANGE: Final = "pilot:"
"""Prefix of the range in which a kind's pilot runs; its name follows."""
_PREFIX: Final = "load:"


class WindowRole(str, Enum):
    """What a window is for. The value is what captures store."""

    IDLE = "idle"
    """Nothing runs: a bracket that idle power is taken from."""
    SOAK = "soak"
    """Warms the GPU up; part of no analysis."""
    SINGLE = "single"
    """One kind alone."""
    MIXTURE = "mixture"
    """Several kinds."""
    INTERVENTION = "intervention"
    """A mixture, or the same with more or fewer launches of one kind, in ABBA order."""


@dataclass(frozen=True, slots=True)
class LoadWindow:
    """One window.

    Attributes:
        number: Its number in the plan.
        role: What it is for.
        length_s: How long it is measured, after it has settled.
        slot_s: The launches of ``counts`` run once in so long, on average; 0 repeats them at once, without a gap.
        counts: Launches of each kind in a slot; empty where nothing runs.
        group: Windows that hide together from a fit: one mixture, or the four windows of an intervention.
        side: ``A`` or ``B`` of an intervention, else empty.
        changed: The kind of which side B has more or fewer; else empty.
        target_w: Power that it was planned for; 0 for none.
    """

    number: int
    role: WindowRole
    length_s: float
    slot_s: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    group: str = ""
    side: str = ""
    changed: str = ""
    target_w: float = 0.0

    @property
    def range_name(self) -> str:
        """``load:`` and the window as JSON."""
        return _PREFIX + json.dumps(self.to_dict(), separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "role": self.role.value, "counts": dict(self.counts)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> LoadWindow:
        """Inverse of `to_dict`."""
        return cls(**{**document, "role": WindowRole(document["role"])})

    @classmethod
    def of_range(cls, name: str) -> LoadWindow | None:
        """The window whose `range_name` this is; None for other ranges."""
        return cls.from_dict(json.loads(name[len(_PREFIX) :])) if name.startswith(_PREFIX) else None
