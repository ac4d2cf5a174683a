"""A titled part of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from qmeter_native.reporters.console.footnotes import Footnotes
from qmeter_native.reporters.console.table import INDENT

__all__ = ["Section"]


@dataclass(frozen=True, slots=True)
class Section:
    """A title, what stands under it, and the footnotes of what is missing there. Prints nothing if empty."""

    title: str
    body: Sequence[RenderableType] = ()
    subtitle: str = ""
    footnotes: Footnotes = field(default_factory=Footnotes)
    remarks: Sequence[str] = ()

    def print(self, console: Console) -> None:
        """Print the section with an empty line before it."""
        if not self.body:
            return
        title = Text.assemble("\n", (self.title, "bold"))
        if self.subtitle:
            title.append(f"  {self.subtitle}", "dim")
        console.print(title)
        for part in self.body:
            console.print(part)
        for line in (*self.footnotes.lines(), *self.remarks):
            console.print(Padding(Text(line, "dim"), (0, 0, 0, INDENT)))
