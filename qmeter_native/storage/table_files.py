"""Tables as Parquet files.

Columns keep their names, in the narrowest integer type that holds them, but for two: where a table has ``start_ns``
and ``end_ns``, the file has ``base_ns`` (constant: the first start), ``start_delta_ns`` (difference to the row before)
and ``duration_ns``. Both are small and alike from row to row, which is what brings a kernel down to a few bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qmeter_native.errors import DamagedCaptureError
from qmeter_native.model.table import Table
from qmeter_native.storage.schema import ABSENT_COLUMNS

__all__ = ["read_table", "write_table"]

_T = TypeVar("_T", bound=Table)
_Array = NDArray[Any]

_ROW_GROUP_ROWS: Final = 1 << 20
_ZSTD_LEVEL: Final = 3


def write_table(table: Table, path: Path) -> None:
    """Write a table to ``path``.

    Raises:
        OSError: The file cannot be written, such as for lack of space.
    """
    try:
        pl.DataFrame(_encoded(table)).write_parquet(
            path, compression="zstd", compression_level=_ZSTD_LEVEL, row_group_size=_ROW_GROUP_ROWS, statistics=False
        )
    except pl.exceptions.PolarsError as error:  # polars wraps what the system said
        raise OSError(str(error)) from error


def read_table(table: type[_T], files: Sequence[tuple[Path, int]], *, by_start: bool = False) -> _T:
    """Read the rows of all ``files`` (paths with numbers of rows), one column at a time to keep memory low.

    A column that is constant takes no memory: it is a read-only broadcast view.

    Args:
        table: Which table they hold.
        files: In the order of their rows.
        by_start: Sort the rows by ``start_ns``.

    Raises:
        DamagedCaptureError: A file is truncated, or is not what the manifest says.
    """
    reader = _Reader(table, files)
    order = None
    columns: dict[str, _Array] = {}
    if _has_interval(table):
        columns["start_ns"], columns["end_ns"] = reader.interval()
        if by_start and not np.all(columns["start_ns"][:-1] <= columns["start_ns"][1:]):
            order = np.argsort(columns["start_ns"], kind="stable")
            columns = {name: values[order] for name, values in columns.items()}
    for spec in table.columns():
        if spec.name not in columns:
            values = reader.column(spec.name, spec.metadata["dtype"])
            is_constant = values.strides == (0,)
            columns[spec.name] = values if order is None or is_constant else values[order]
    return table(**{spec.name: columns[spec.name] for spec in table.columns()})


def _encoded(table: Table) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    values = {spec.name: getattr(table, spec.name) for spec in table.columns()}
    if _has_interval(type(table)):
        start, end = values.pop("start_ns"), values.pop("end_ns")
        columns["base_ns"] = np.broadcast_to(start[:1], len(start))
        columns["start_delta_ns"] = _narrow(np.diff(start, prepend=start[:1]))
        columns["duration_ns"] = _narrow(end - start)
    for name, column in values.items():
        columns[name] = pl.Series(name, column.tolist(), pl.String) if column.dtype.hasobject else _narrow(column)
    return columns


def _has_interval(table: type[Table]) -> bool:
    return {"start_ns", "end_ns"} <= {spec.name for spec in table.columns()}


def _narrow(values: _Array) -> _Array:
    """The same integers in the narrowest type that holds them."""
    if values.dtype == bool or len(values) == 0:
        return values
    low, high = int(values.min()), int(values.max())
    if low >= 0:
        return values.astype(np.min_scalar_type(high), copy=False)
    # -1 - high needs the same signed type as high. A plain union of int8 and uint64 would be float64.
    return values.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(-1 - high)), copy=False)


class _Reader:
    """Columns of one table over all its files."""

    def __init__(self, table: type[Table], files: Sequence[tuple[Path, int]]) -> None:
        self._table = table
        self._files = files
        self._num_rows = sum(num_rows for _, num_rows in files)

    def interval(self) -> tuple[_Array, _Array]:
        """``start_ns`` and ``end_ns``."""
        start, end = np.empty(self._num_rows, np.int64), np.empty(self._num_rows, np.int64)
        row = 0
        for path, num_rows in self._files:
            rows = slice(row, row + num_rows)
            delta = self._part(path, "start_delta_ns", num_rows).to_numpy()
            duration = self._part(path, "duration_ns", num_rows).to_numpy()
            np.cumsum(delta, dtype=np.int64, out=start[rows])
            start[rows] += self._part(path, "base_ns", num_rows)[:1].to_numpy()
            # A duration may be uint64, which numpy adds to int64 as floats.
            np.add(start[rows], duration, out=end[rows], dtype=np.int64, casting="unsafe")
            row += num_rows
        return start, end

    def column(self, name: str, dtype: np.dtype[Any]) -> _Array:
        """One column; a broadcast view if it is constant."""
        values: _Array | None = None
        constant: Any = None
        row = 0
        for path, num_rows in self._files:
            part = self._part(path, name, num_rows)
            if values is None and _is_constant(part) and (row == 0 or part[0] == constant):
                constant = part[0]
            else:
                if values is None:
                    values = np.full(self._num_rows, constant, dtype) if row else np.empty(self._num_rows, dtype)
                values[row : row + num_rows] = part.to_list() if dtype.hasobject else part.to_numpy()
            row += num_rows
        if values is None:
            values = np.broadcast_to(np.array([constant], dtype)[:row], row)
        return values

    def _part(self, path: Path, name: str, num_rows: int) -> pl.Series:
        try:
            if (self._table.NAME, name) in ABSENT_COLUMNS and name not in pl.read_parquet_schema(path):
                return pl.repeat(ABSENT_COLUMNS[self._table.NAME, name], num_rows, eager=True)
            series: pl.Series = pl.read_parquet(path, columns=[name]).to_series()
            if len(series) != num_rows:
                raise ValueError(f"column {name} has {len(series)} rows instead of {num_rows}")
        except (pl.exceptions.PolarsError, OSError, ValueError, TypeError) as error:
            raise DamagedCaptureError(
                f"{path} cannot be read as the {self._table.NAME} table: {error}",
                "Copy the capture again from where it was made, or record it again.",
            ) from error
        return series


def _is_constant(series: pl.Series) -> bool:
    return len(series) > 0 and series.dtype != pl.String and bool(series.min() == series.max())
