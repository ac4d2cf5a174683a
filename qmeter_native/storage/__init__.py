"""The capture format: reading and writing captures, and reading the spools of traced processes."""

from __future__ import annotations

from qmeter_native.storage.reader import read_capture
from qmeter_native.storage.schema import SCHEMA_VERSION
from qmeter_native.storage.spool import SpoolContents, read_spool, scan_spool
from qmeter_native.storage.spool_join import join_spools
from qmeter_native.storage.writer import write_capture

__all__ = [
    "SCHEMA_VERSION",
    "SpoolContents",
    "join_spools",
    "read_capture",
    "read_spool",
    "scan_spool",
    "write_capture",
]
