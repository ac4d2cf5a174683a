"""The capture format's name, version and files.

History of the schema (the version is ``schema_version`` in ``manifest.json``):

1. First version. ``manifest.json``; one Parquet file (zstd) per table, for tables with a ``process`` column one per
   process; start times as differences, end times as durations.
"""

from __future__ import annotations

import re
from typing import Final

from qmeter_native.model.manifest import ProcessInfo

__all__ = ["FORMAT", "MANIFEST_FILE", "SCHEMA_VERSION", "SPOOL_FOLDER", "SPOOL_SUFFIX", "table_file"]

FORMAT: Final = "qmeter-native capture"
"""``format`` in ``manifest.json``: what tells a capture from any other folder."""

SCHEMA_VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"
SPOOL_FOLDER: Final = "spool"
SPOOL_SUFFIX: Final = ".qms"


def table_file(table: str, process: ProcessInfo | None) -> str:
    """File name of a table, or of one process's part of it: ``kernels-<host>-<pid>.parquet``.

    Two processes of the same host and pid (the pid was used again, or containers share a host name) are told apart
    by the process's index, which is appended for all but the first process of a capture.
    """
    if process is None:
        return f"{table}.parquet"
    host = re.sub(r"[^A-Za-z0-9.]+", "_", process.host) or "host"
    index = f"-{process.index}" if process.index else ""
    return f"{table}-{host}-{process.pid}{index}.parquet"
