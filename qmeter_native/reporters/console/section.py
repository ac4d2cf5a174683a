"""A titled part of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import RenderableType
from rich.text import Text

from qmeter_native.reporters.console.footnotes import Footnotes
from qmeter_native.reporters.console.table import indented

__all__ = ["Section"]


@dataclass(frozen=True, slots=True)
class Section:
    """A title, what stands under it, and the footnotes of what is missing there. Empty without a body."""

    title: str
    body: Sequence[RenderableType] = ()
    subtitle: str = ""
    footnotes: Footnotes = field(default_factory=Footnotes)
    remarks: Sequence[str] = ()

    def parts(self) -> list[RenderableType]:
        """What to print, an empty line first; nothing if there is no body."""
        if not self.body:
            return []
        title = Text.assemble("\n", (self.title, "bold"))
        if self.subtitle:
            title.append(f"  {self.subtitle}", "dim")
        notes = [indented(line, "dim") for line in (*self.footnotes.lines(), *self.remarks)]
        return [title, *self.body, *notes]
