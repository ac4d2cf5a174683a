"""Tuning on demand: the fastest tiles among candidates, and the tables that keep them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from qmeter_native.errors import BenchmarkError
from qmeter_native.kernels.gemm_config import TABLE_VERSION, GemmConfig, user_table

__all__ = ["TunedRow", "TuningTable", "fastest"]

_KEY: Final = ("kernel", "m", "n", "k")
_FINALISTS: Final = 6
_BATCH: Final = 12
"""Candidates whose graphs exist at once: each keeps an output of its own."""

Time = Callable[[Sequence[GemmConfig], int], Mapping[GemmConfig, float]]
"""Times configurations side by side, so many bursts each: median seconds of a call; those that fail are left out."""


@dataclass(frozen=True, slots=True)
class TunedRow:
    """The best tiles that were found for a product.

    Attributes:
        kernel: What tables call the kernel and the format.
        m, n, k: Sizes.
        config: The tiles.
        time_s: Seconds of a call with them.
        dequantized_s: Seconds of dequantizing first, where that is another way to the product.
    """

    kernel: str
    m: int
    n: int
    k: int
    config: GemmConfig
    time_s: float
    dequantized_s: float | None = None

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What it is about."""
        return self.kernel, self.m, self.n, self.k

    def to_dict(self) -> dict[str, Any]:
        """A row of the table."""
        head = {"kernel": self.kernel, "m": self.m, "n": self.n, "k": self.k}
        times = {"us": self.time_s, "us_dequantized": self.dequantized_s}
        return {
            **head,
            **asdict(self.config),
            **{name: round(seconds * 1e6, 3) for name, seconds in times.items() if seconds is not None},
        }


@dataclass(slots=True)
class TuningTable:
    """The file of one architecture, ``sm_90.json``; `gemm_config.tuned_config` reads it.

    Attributes:
        path: The file.
        rows: By kernel and sizes.
    """

    path: Path
    rows: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, capability: tuple[int, int], path: Path | None = None) -> TuningTable:
        """The table at ``path``, by default the user's; empty where there is none yet.

        Raises:
            BenchmarkError: It cannot be read, or has another version.
        """
        path = path or user_table(capability)
        if not path.exists():
            return cls(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["schema_version"] != TABLE_VERSION:
                raise ValueError(f"schema version {document['schema_version']}")
            rows = {tuple(row.get(name) for name in _KEY): row for row in document["rows"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(
                f"{path} is no table of tiles: {error}", "Move it away, or tune into another."
            ) from error
        return cls(path, rows)

    def add(self, row: TunedRow) -> None:
        """Keep a row in place of an older one, and write the file.

        Raises:
            BenchmarkError: The file cannot be written.
        """
        self.rows[row.key] = row.to_dict()
        limit = self._limit(row.kernel)
        if limit is not None:
            self.rows[row.kernel, None, None, None] = {"kernel": row.kernel, "m_limit": limit}
        ordered = sorted(self.rows.values(), key=lambda row: [row["kernel"], *(row.get(name, 0) for name in _KEY[1:])])
        lines = ",\n  ".join(json.dumps(row) for row in ordered)
        text = f'{{\n "schema_version": {TABLE_VERSION},\n "rows": [\n  {lines}\n ]\n}}\n'
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise BenchmarkError(f"{self.path} cannot be written: {error.strerror}", "Give --output.") from error

    def _limit(self, kernel: str) -> int | None:
        """Most tokens up to which the kernel is nowhere slower than dequantizing first; None: never compared."""
        limit = None
        compared = [row for row in self.rows.values() if row["kernel"] == kernel and "us_dequantized" in row]
        for m in sorted({row["m"] for row in compared}):
            if any(row["us"] > row["us_dequantized"] for row in compared if row["m"] == m):
                return limit or 0
            limit = m
        return limit


def fastest(candidates: Sequence[GemmConfig], time: Time, num_repeats: int) -> tuple[GemmConfig, float] | None:
    """The best of the candidates and its seconds of a call; None where none runs.

    Each is timed once; the first few of those again and side by side, ``num_repeats`` bursts each.
    """
    once: dict[GemmConfig, float] = {}
    for first in range(0, len(candidates), _BATCH):
        once |= time(candidates[first : first + _BATCH], 1)
    finalists = sorted(once, key=once.__getitem__)[:_FINALISTS]
    if not finalists:
        return None
    again = time(finalists, num_repeats)
    best = min(again, key=again.__getitem__, default=None)
    return None if best is None else (best, again[best])
