"""The capture format's name, version and files.

History of the schema (the version is ``schema_version`` in ``manifest.json``):

1. First version. ``manifest.json``; one Parquet file (zstd) per table, for tables with a ``process`` column one per
   process; start times as differences, end times as durations.
2. Tables ``trace_windows``, ``engine_requests`` and ``preemptions``; column ``steps.num_padded`` (-1 in older
   captures); ``gpu_uuids``, ``clock_offset_ns`` and ``clock_offset_range_ns`` of processes; ``weights_source`` of the
   engine. A table of more than 2^21 rows has several files, which hold its rows in order of their listing; only kernels
   may overlap in time from one to the next.
3. Tables ``counters``, ``counter_windows`` and ``throttles``; ``counters`` in the manifest says what was sampled.
"""

from __future__ import annotations

import re
from typing import Final

from qmeter_native.model.manifest import ProcessInfo

__all__ = [
    "ABSENT_COLUMNS",
    "FORMAT",
    "MANIFEST_FILE",
    "PART_ROWS",
    "SCHEMA_VERSION",
    "SPOOL_FOLDER",
    "SPOOL_SUFFIX",
    "table_file",
]

FORMAT: Final = "qmeter-native capture"
"""``format`` in ``manifest.json``: what tells a capture from any other folder."""

SCHEMA_VERSION: Final = 3
MANIFEST_FILE: Final = "manifest.json"
SPOOL_FOLDER: Final = "spool"
SPOOL_SUFFIX: Final = ".qms"

PART_ROWS: Final = 1 << 21
"""Most rows of one file: writing and reading hold a part of this size, about 110 MB of kernels, beside the result."""

ABSENT_COLUMNS: Final[dict[tuple[str, str], int]] = {("steps", "num_padded"): -1}
"""Columns, by table and name, that older captures do not have, and what stands for them."""


def table_file(table: str, process: ProcessInfo | None, part: int = 0) -> str:
    """File name of a table, or of one process's rows of it: ``kernels-<host>-<pid>.parquet``.

    The second and further files of the same rows end in ``.1.parquet``, ``.2.parquet``, …

    Two processes of the same host and pid (the pid was used again, or containers share a host name) are told apart
    by the process's index, which is appended for all but the first process of a capture.
    """
    ending = f".{part}.parquet" if part else ".parquet"
    if process is None:
        return f"{table}{ending}"
    host = re.sub(r"[^A-Za-z0-9.]+", "_", process.host) or "host"
    index = f"-{process.index}" if process.index else ""
    return f"{table}-{host}-{process.pid}{index}{ending}"
