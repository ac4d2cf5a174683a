"""Tables that fit their terminal: less important columns go before a line breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rich.cells import cell_len
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["INDENT", "Column", "fitted_table", "indented", "plain", "shortened"]

INDENT: Final = 2
_GAP: Final = 2
_MIN_FLEXIBLE: Final = 22
"""Characters below which a kernel's name says nothing any more."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its cells as text.

    Attributes:
        rank: 0 stays at any width; of the others the highest rank goes first.
        flexible: Its cells may be ``cut`` in the middle or may ``wrap``. One column a table.
    """

    title: str
    cells: Sequence[str]
    rank: int = 0
    justify: Literal["left", "right"] = "right"
    style: str = ""
    flexible: Literal["", "cut", "wrap"] = ""

    @property
    def width(self) -> int:
        """Characters of the widest cell or the title."""
        return max(cell_len(text) for text in (self.title, *self.cells))

    def cell(self, row: int, width: int) -> Text:
        """Cell ``row`` in lines of at most ``width`` characters."""
        return Text(self.cells[row] if self.flexible == "wrap" else shortened(self.cells[row], width))


def plain(text: str) -> str:
    """``text`` without anything that a terminal would obey: names come from the traced program."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def indented(text: str, style: str = "") -> RenderableType:
    """A line of text under a section's title, wrapped to as many as it takes."""
    return Padding(Text(plain(text), style), (0, 0, 0, INDENT))


def shortened(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters, cut in the middle: kernels differ at both ends of their names."""
    if cell_len(text) <= width:
        return text
    if width < 2:
        return "…"[:width]
    tail = (width - 1) // 3
    head = width - 1 - tail
    return f"{text[:head]}…{text[len(text) - tail :]}"


def fitted_table(columns: Sequence[Column], width: int) -> tuple[RenderableType, list[str]]:
    """An indented table of at most ``width`` characters, and the titles of the columns that had no room."""
    kept = list(columns)
    while _needed(kept) > width and any(column.rank for column in kept):
        kept.remove(max(kept, key=lambda column: column.rank))
    slack = width - INDENT - _GAP * (len(kept) - 1) - sum(column.width for column in kept if not column.flexible)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    widths = [max(2, min(column.width, slack)) if column.flexible else column.width for column in kept]
    for column, fit in zip(kept, widths, strict=True):
        title = Text(shortened(column.title, fit))
        table.add_column(title, width=fit, justify=column.justify, style=column.style)
    for row in range(len(kept[0].cells)):
        table.add_row(*(column.cell(row, fit) for column, fit in zip(kept, widths, strict=True)))
    return Padding(table, (0, 0, 0, INDENT)), [column.title for column in columns if column not in kept]


def _needed(columns: Sequence[Column]) -> int:
    """Characters that ``columns`` need when the flexible one is at its least."""
    widths = [min(column.width, _MIN_FLEXIBLE) if column.flexible else column.width for column in columns]
    return INDENT + sum(widths) + _GAP * (len(widths) - 1)
