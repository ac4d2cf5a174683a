"""How a matrix product is cut into tiles, and the tables of cuts that were found best, one file a GPU architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from qmeter_native.errors import UsageError

__all__ = ["GemmConfig", "tuned_config"]


@dataclass(frozen=True, slots=True)
class GemmConfig:
    """Tiles of one launch.

    Attributes:
        block_m, block_n, block_k: Tokens, outputs and inputs of a tile.
        split_k: Programs that share the inputs of one output tile.
        num_warps, num_stages: As Triton's.
    """

    block_m: int
    block_n: int
    block_k: int
    split_k: int = 1
    num_warps: int = 4
    num_stages: int = 4

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> GemmConfig:
        """From a table's row."""
        return cls(**{name: int(fields[name]) for name in cls.__dataclass_fields__ if name in fields})


def tuned_config(kernel: str, capability: tuple[int, int], m: int, n: int, k: int) -> GemmConfig | None:
    """The best known tiles for a product; None where this architecture was not tuned for this kernel.

    ``configs/sm_90.json`` holds rows ``{"kernel", "m", "n", "k", "block_m", …}``. Of a kernel's rows those of the
    nearest ``n`` and ``k`` (by ratio) are taken, and of them the smallest ``m`` that is not below the product's,
    else the largest.
    """
    rows = [row for row in _table(capability) if row["kernel"] == kernel]
    if not rows:
        return None
    nearest = min(rows, key=lambda row: _distance(row["n"], n) + _distance(row["k"], k))
    rows = sorted(
        (row for row in rows if (row["n"], row["k"]) == (nearest["n"], nearest["k"])), key=lambda row: row["m"]
    )
    return GemmConfig.of(next((row for row in rows if row["m"] >= m), rows[-1]))


def _distance(one: int, other: int) -> float:
    return max(one, other) / min(one, other)


@cache
def _table(capability: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    path = files(__package__) / "configs" / f"sm_{capability[0]}{capability[1]}.json"
    if not path.is_file():
        return ()
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema_version") != 1:
        raise UsageError(f"{path} has schema version {document.get('schema_version')}", "This version reads 1.")
    return tuple(document["rows"])
