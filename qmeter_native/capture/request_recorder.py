"""What clients saw → spool: requests and the chunks of their output."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmeter_native.model.table import Table
from qmeter_native.model.tables import OutputTokenTable, RequestTable
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["record_requests"]


def record_requests(spool: Any, requests: RequestTable, output_tokens: OutputTokenTable) -> None:
    """Append both tables to ``spool`` (``_native.Spool``)."""
    spool.append(RecordKind.REQUEST, _records(spool, RecordKind.REQUEST, requests))
    spool.append(RecordKind.OUTPUT_TOKEN, _records(spool, RecordKind.OUTPUT_TOKEN, output_tokens))


def _records(spool: Any, kind: RecordKind, table: Table) -> np.ndarray[Any, Any]:
    records = np.zeros(len(table), RECORD_DTYPES[kind])
    for spec in table.columns():
        values = getattr(table, spec.name)
        if values.dtype == object:
            values = [spool.intern(text) for text in values.tolist()]
        records[spec.name] = values
    return records
