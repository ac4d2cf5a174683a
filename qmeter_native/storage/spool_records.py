"""Records of a spool as numpy dtypes: packed, little-endian, field for field those of ``csrc/records/records.h``.

Where a table has text, its record has the id of a string; ``process`` and ``range_id`` are not recorded: a spool
belongs to one process, and nothing tells yet which range a kernel was launched in.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np

from qmeter_native.model.table import Table
from qmeter_native.model.tables import (
    ClockPairTable,
    ClockTable,
    CounterTable,
    CounterWindowTable,
    EnergyTable,
    EngineRequestTable,
    KernelClassTable,
    KernelTable,
    OutputTokenTable,
    PowerTable,
    PreemptionTable,
    RangeTable,
    RequestIdTable,
    RequestTable,
    StepRequestTable,
    StepTable,
    ThrottleTable,
    TraceWindowTable,
)

__all__ = ["BLOCK_HEADER", "BLOCK_MAGIC", "RECORD_DTYPES", "RECORD_TABLES", "SPOOL_VERSION", "RecordKind"]

BLOCK_MAGIC: Final = b"QMSB"
"""First four bytes of every block; ``kSpoolMagic`` in ``csrc/records/spool_format.h``."""

SPOOL_VERSION: Final = 1


class RecordKind(IntEnum):
    """What the payload of a block is."""

    IDENTITY = 1
    STRINGS = 2
    CLASS = 3
    KERNEL = 4
    RANGE = 5
    STEP = 6
    STEP_REQUEST = 7
    REQUEST = 8
    OUTPUT_TOKEN = 9
    ENERGY = 10
    POWER = 11
    CLOCK = 12
    CLOCK_PAIR = 13
    STATS = 14
    TRACE_WINDOW = 15
    REQUEST_ID = 16
    ENGINE_REQUEST = 17
    PREEMPTION = 18
    COUNTER = 19
    COUNTER_WINDOW = 20
    THROTTLE = 21


def _packed(fields: str) -> np.dtype[Any]:
    """A packed dtype from ``name:format`` words."""
    return np.dtype([(name, f"<{code}") for name, code in (word.split(":") for word in fields.split())])


BLOCK_HEADER: Final = _packed(
    "magic:u4 version:u2 kind:u2 sequence:u4 count:u4 payload_bytes:u4 payload_crc:u4 header_crc:u4"
)
"""``SpoolBlockHeader``: 28 bytes; ``header_crc`` covers the 24 before it."""

RECORD_DTYPES: Final[dict[RecordKind, np.dtype[Any]]] = {
    RecordKind.CLASS: _packed(
        "class_id:u4 name:u4 kind:u1 grid_x:i4 grid_y:i4 grid_z:i4 block_x:i4 block_y:i4 block_z:i4 "
        "static_shared_bytes:i4 dynamic_shared_bytes:i4 registers:i4"
    ),
    RecordKind.KERNEL: _packed(
        "start_ns:i8 end_ns:i8 class_id:u4 device:i2 stream:u4 graph:u4 graph_node:u8 correlation:u4 copied_bytes:u8"
    ),
    RecordKind.RANGE: _packed("start_ns:i8 end_ns:i8 name:u4 thread:u4 depth:u2"),
    RecordKind.STEP: _packed("step:i8 start_ns:i8 end_ns:i8 device:i2 stream:u4 num_markers:u1 num_padded:i4"),
    RecordKind.STEP_REQUEST: _packed(
        "step:i8 request:i4 phase:u1 num_scheduled:i4 num_cached:i4 num_draft:i4 num_sampled:i4 context_len:i4"
    ),
    RecordKind.REQUEST: _packed(
        "request:i4 name:u4 send_ns:i8 first_token_ns:i8 last_token_ns:i8 num_prompt_tokens:i4 num_output_tokens:i4 "
        "is_finished:u1 error:u4"
    ),
    RecordKind.OUTPUT_TOKEN: _packed("request:i4 time_ns:i8 num_tokens:i4"),
    RecordKind.ENERGY: _packed("device:i2 source:u1 low_ns:i8 high_ns:i8 energy_uj:i8"),
    RecordKind.POWER: _packed("device:i2 source:u1 time_ns:i8 power_mw:i4"),
    RecordKind.CLOCK: _packed("device:i2 time_ns:i8 sm_mhz:i4 memory_mhz:i4 temperature_c:i2 throttle_reasons:u8"),
    RecordKind.CLOCK_PAIR: _packed("realtime_ns:i8 monotonic_ns:i8"),
    RecordKind.TRACE_WINDOW: _packed("start_ns:i8 end_ns:i8"),
    RecordKind.REQUEST_ID: _packed("request:i4 name:u4"),
    RecordKind.ENGINE_REQUEST: _packed(
        "request:i4 arrival_ns:i8 first_schedule_ns:i8 first_token_ns:i8 finish_ns:i8 num_prompt_tokens:i4 "
        "num_cached_tokens:i4 num_output_tokens:i4 is_finished:u1 reason:u4"
    ),
    RecordKind.PREEMPTION: _packed("request:i4 time_ns:i8"),
    RecordKind.COUNTER: _packed("device:i2 quantity:u1 start_ns:i8 end_ns:i8 value:f8"),
    RecordKind.COUNTER_WINDOW: _packed(
        "device:i2 enable_ns:i8 start_ns:i8 stop_ns:i8 disable_ns:i8 interval_ns:i8 num_samples:i8 num_lost:i8"
    ),
    RecordKind.THROTTLE: _packed("device:i2 time_ns:i8 power_ns:i8 thermal_ns:i8"),
}
"""Layout of each kind whose payload is an array of records."""

RECORD_TABLES: Final[dict[RecordKind, type[Table]]] = {
    RecordKind.CLASS: KernelClassTable,
    RecordKind.KERNEL: KernelTable,
    RecordKind.RANGE: RangeTable,
    RecordKind.STEP: StepTable,
    RecordKind.STEP_REQUEST: StepRequestTable,
    RecordKind.REQUEST: RequestTable,
    RecordKind.OUTPUT_TOKEN: OutputTokenTable,
    RecordKind.ENERGY: EnergyTable,
    RecordKind.POWER: PowerTable,
    RecordKind.CLOCK: ClockTable,
    RecordKind.CLOCK_PAIR: ClockPairTable,
    RecordKind.TRACE_WINDOW: TraceWindowTable,
    RecordKind.REQUEST_ID: RequestIdTable,
    RecordKind.ENGINE_REQUEST: EngineRequestTable,
    RecordKind.PREEMPTION: PreemptionTable,
    RecordKind.COUNTER: CounterTable,
    RecordKind.COUNTER_WINDOW: CounterWindowTable,
    RecordKind.THROTTLE: ThrottleTable,
}
"""The table that each kind of record becomes rows of."""
