"""One table, or one process's part of it, as a Parquet file.

Columns keep their names, in the narrowest integer type that holds them, but for two: where a table has ``start_ns``
and ``end_ns``, the file has ``base_ns`` (constant: the first start), ``start_delta_ns`` (difference to the row before)
and ``duration_ns``. Both are small and alike from row to row, which is what brings a kernel down to a few bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qmeter_native.errors import DamagedCaptureError
from qmeter_native.model.table import Table

__all__ = ["read_table", "write_table"]

_T = TypeVar("_T", bound=Table)

_ROW_GROUP_ROWS: Final = 1 << 20
_ZSTD_LEVEL: Final = 3


def write_table(table: Table, path: Path) -> None:
    """Write a table to ``path``.

    Raises:
        OSError: The file cannot be written, such as for lack of space.
    """
    try:
        pl.DataFrame(_encoded(table)).write_parquet(
            path, compression="zstd", compression_level=_ZSTD_LEVEL, row_group_size=_ROW_GROUP_ROWS
        )
    except pl.exceptions.PolarsError as error:  # polars wraps what the system said
        raise OSError(str(error)) from error


def read_table(table: type[_T], path: Path, num_rows: int) -> _T:
    """Read a table of ``num_rows`` rows from ``path``, one column at a time to keep memory low.

    A column that is constant takes no memory: it is a read-only broadcast view.

    Raises:
        DamagedCaptureError: The file is truncated, or is not what the manifest says.
    """
    try:
        return table(**_decoded(table, path, num_rows))
    except (pl.exceptions.PolarsError, OSError, ValueError, TypeError) as error:
        raise DamagedCaptureError(
            f"{path} cannot be read as the {table.NAME} table: {error}",
            "Copy the capture again from where it was made, or record it again.",
        ) from error


def _encoded(table: Table) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    values = {spec.name: getattr(table, spec.name) for spec in table.columns()}
    if _has_interval(type(table)):
        start, end = values.pop("start_ns"), values.pop("end_ns")
        base = start[:1].repeat(len(start))
        columns["base_ns"] = base
        columns["start_delta_ns"] = _narrow(np.diff(start, prepend=start[:1]))
        columns["duration_ns"] = _narrow(end - start)
    for name, column in values.items():
        columns[name] = pl.Series(name, column.tolist(), pl.String) if column.dtype.hasobject else _narrow(column)
    return columns


def _has_interval(table: type[Table]) -> bool:
    return {"start_ns", "end_ns"} <= {spec.name for spec in table.columns()}


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """The same integers in the narrowest type that holds them."""
    if values.dtype == bool or len(values) == 0:
        return values
    low, high = int(values.min()), int(values.max())
    if low >= 0:
        return values.astype(np.min_scalar_type(high), copy=False)
    # -1 - high needs the same signed type as high. A plain union of int8 and uint64 would be float64.
    return values.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(-1 - high)), copy=False)


def _decoded(table: type[Table], path: Path, num_rows: int) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    if _has_interval(table):
        start = np.cumsum(_column(path, "start_delta_ns", num_rows), dtype=np.int64)
        start += pl.read_parquet(path, columns=["base_ns"], n_rows=1)["base_ns"].to_numpy()
        columns["start_ns"] = start
        columns["end_ns"] = start + _column(path, "duration_ns", num_rows)
    for spec in table.columns():
        if spec.name not in columns:
            columns[spec.name] = _column(path, spec.name, num_rows, spec.metadata["dtype"])
    return columns


def _column(path: Path, name: str, num_rows: int, dtype: Any = np.int64) -> NDArray[Any]:
    series = pl.read_parquet(path, columns=[name])[name]
    if len(series) != num_rows:
        raise ValueError(f"column {name} has {len(series)} rows instead of {num_rows}")
    if series.dtype == pl.String:
        return np.array(series.to_list(), object)
    if num_rows and series.min() == series.max():
        return np.broadcast_to(series[:1].to_numpy().astype(dtype), num_rows)
    return series.to_numpy().astype(dtype, copy=False)
