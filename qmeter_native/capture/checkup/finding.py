"""One thing that was looked at on this machine, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "State"]


class State(Enum):
    """How a thing stands. The value is what ``doctor --json`` prints."""

    OK = "ok"
    ABSENT = "absent"
    """Not here, which may be as it should be."""
    BROKEN = "broken"
    """Here and not usable, or in the way; the advice mends it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the doctor's report.

    Attributes:
        topic: Heading under which it stands.
        name: What was looked at.
        state: How it stands.
        detail: What was found, in a few words.
        advice: What to do, None if nothing.
    """

    topic: str
    name: str
    state: State
    detail: str
    advice: str | None = None
