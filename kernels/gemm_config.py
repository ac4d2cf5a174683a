"""How a matrix product is cut into tiles, and the tables of cuts that were found best, one file a GPU architecture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from qmeter_native.errors import UsageError

__all__ = ["TABLE_VERSION", "GemmConfig", "tuned_config", "tuned_limit", "user_table"]

TABLE_VERSION: Final = 1
"""Of the files of tiles. 1: first version."""


@dataclass(frozen=True, slots=True)
class GemmConfig:
    """Tiles of one launch.

    Attributes:
        block_m, block_n, block_k: Tokens, outputs and inputs of a tile.
        split_k: Programs that share the inputs of one output tile.
        num_warps, num_stages: As Triton's.
        persistent: Programs of a multiprocessor that walk over all tiles, where a kernel can; 0: a program a tile.
    """

    block_m: int
    block_n: int
    block_k: int
    split_k: int = 1
    num_warps: int = 4
    num_stages: int = 4
    persistent: int = 0

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> GemmConfig:
        """From a table's row."""
        return cls(**{name: int(fields[name]) for name in cls.__dataclass_fields__ if name in fields})

    def tiles(self, m: int, n: int) -> int:
        """Output tiles of a product with ``m`` tokens and ``n`` outputs."""
        return -(-m // self.block_m) * -(-n // self.block_n)


def tuned_config(kernel: str, capability: tuple[int, int], m: int, n: int, k: int) -> GemmConfig | None:
    """The best known tiles for a product; None where this architecture was not tuned for this kernel.

    ``configs/sm_90.json`` holds rows ``{"kernel", "m", "n", "k", "block_m", …}``; those of the user's own table
    (`user_table`) go before them. Of a kernel's rows those of the nearest ``n`` and ``k`` (by ratio) are taken, and of
    them the smallest ``m`` that is not below the product's, else the largest.
    """
    rows = [row for row in _table(capability) if row["kernel"] == kernel and "block_m" in row]
    if not rows:
        return None
    nearest = min(rows, key=lambda row: _distance(row["n"], n) + _distance(row["k"], k))
    rows = sorted(
        (row for row in rows if (row["n"], row["k"]) == (nearest["n"], nearest["k"])), key=lambda row: row["m"]
    )
    return GemmConfig.of(next((row for row in rows if row["m"] >= m), rows[-1]))


def tuned_limit(kernel: str, capability: tuple[int, int]) -> int | None:
    """Most tokens for which ``kernel`` is the best choice, of a row ``{"kernel", "m_limit"}``; None: not measured."""
    return next((row["m_limit"] for row in _table(capability) if row["kernel"] == kernel and "m_limit" in row), None)


def _distance(one: int, other: int) -> float:
    return max(one, other) / min(one, other)


def user_table(capability: tuple[int, int]) -> Path:
    """Where ``qmeter-native kernels tune`` keeps what it finds: in ``$QMETER_KERNELS``, else in the user's cache."""
    cache_folder = os.environ.get("XDG_CACHE_HOME")
    default = (Path(cache_folder) if cache_folder else Path.home() / ".cache") / "qmeter-native" / "kernels"
    return Path(os.environ.get("QMETER_KERNELS") or default) / f"sm_{capability[0]}{capability[1]}.json"


@cache
def _table(capability: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    user = user_table(capability)
    shipped = files(__package__) / "configs" / user.name
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in (user, shipped):
        for row in _rows(path) if path.is_file() else ():
            rows.setdefault(tuple(row.get(name) for name in ("kernel", "m", "n", "k")), row)
    return tuple(rows.values())


def _rows(path: Any) -> list[dict[str, Any]]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema_version") != TABLE_VERSION:
        raise UsageError(
            f"{path} has schema version {document.get('schema_version')}", f"This version reads {TABLE_VERSION}."
        )
    rows: list[dict[str, Any]] = document["rows"]
    return rows
