"""The messages of a Perfetto trace that we write. Field numbers are those of Perfetto's trace_packet.proto,
track_descriptor.proto, track_event.proto and interned_data.proto (checked against release 0.59 by the tests).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.reporters.perfetto.protobuf import (
    Rows,
    bytes_field,
    double_column,
    message_column,
    rows_of,
    text_field,
    uint_column,
    uint_field,
)

__all__ = ["Interned", "Readings", "Slices", "track_packet"]

_Array = NDArray[Any]

_TRACE_PACKET: Final = 1
_TIMESTAMP, _SEQUENCE_ID, _TRACK_EVENT, _INTERNED_DATA, _SEQUENCE_FLAGS, _TRACK_DESCRIPTOR = 8, 10, 11, 12, 13, 60
_STATE_CLEARED, _NEEDS_STATE = 1, 2
_SEQUENCE: Final = uint_field(_SEQUENCE_ID, 1)
_FROM_INTERNED: Final = _SEQUENCE + uint_field(_SEQUENCE_FLAGS, _NEEDS_STATE)

_UUID, _TRACK_NAME, _PARENT_UUID, _COUNTER, _CHILD_ORDERING, _ORDER_RANK = 1, 2, 5, 8, 11, 12
_UNIT_NAME: Final = 6
_EXPLICIT_ORDER: Final = 3

_ANNOTATION, _TYPE, _NAME_IID, _TRACK_UUID, _DOUBLE_VALUE = 4, 9, 10, 11, 44
_BEGIN, _END, _COUNTER_VALUE = 1, 2, 4

_EVENT_NAMES, _ANNOTATION_NAMES, _STRING_VALUES = 2, 3, 29
_IID, _TEXT = 1, 2
_ANNOTATION_NAME_IID, _ANNOTATION_UINT, _ANNOTATION_TEXT_IID = 1, 3, 17

_TIME_BYTES: Final = 9
"""63 bits: nanoseconds since 1970 need 61."""
_ID_BYTES: Final = 4
_UINT_BYTES: Final = 9


class Interned:
    """Texts by number, so that a name that occurs a million times is written once."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._values: dict[str, int] = {}

    def names(self, texts: Iterable[str]) -> _Array:
        """Numbers of event names."""
        return _numbers(self._names, texts)

    def key(self, text: str) -> int:
        """Number of an argument's name."""
        return self._keys.setdefault(text, len(self._keys) + 1)

    def values(self, texts: Iterable[str]) -> _Array:
        """Numbers of arguments' texts."""
        return _numbers(self._values, texts)

    def packet(self) -> bytes:
        """The packet that says which number is which text; it must precede all packets that use them."""
        tables = ((_EVENT_NAMES, self._names), (_ANNOTATION_NAMES, self._keys), (_STRING_VALUES, self._values))
        data = b"".join(
            bytes_field(table, uint_field(_IID, number) + text_field(_TEXT, text))
            for table, texts in tables
            for text, number in texts.items()
        )
        flags = uint_field(_SEQUENCE_FLAGS, _STATE_CLEARED | _NEEDS_STATE)
        return bytes_field(_TRACE_PACKET, _SEQUENCE + flags + bytes_field(_INTERNED_DATA, data))


def _numbers(known: dict[str, int], texts: Iterable[str]) -> _Array:
    return np.array([known.setdefault(text, len(known) + 1) for text in texts], np.int64)


def track_packet(uuid: int, name: str, *, parent: int = 0, rank: int = 0, unit: str | None = None) -> bytes:
    """Describe a track: its name, the track it belongs under, its place there; with a ``unit`` it is a counter."""
    track = uint_field(_UUID, uuid) + text_field(_TRACK_NAME, name)
    if parent:
        track += uint_field(_PARENT_UUID, parent)
    if unit is not None:
        track += bytes_field(_COUNTER, text_field(_UNIT_NAME, unit))
    track += uint_field(_CHILD_ORDERING, _EXPLICIT_ORDER) + uint_field(_ORDER_RANK, rank)
    return bytes_field(_TRACE_PACKET, _SEQUENCE + bytes_field(_TRACK_DESCRIPTOR, track))


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices on tracks, columnar. Each becomes the packets of its begin and its end.

    Attributes:
        start_ns: int64; slices of a track in order, an outer one before those inside it.
        end_ns: int64.
        track: Track uuids.
        name: Numbers of interned names.
        texts: Arguments by their key's number: numbers of interned values.
        numbers: Arguments by their key's number: non-negative integers.
    """

    start_ns: _Array
    end_ns: _Array
    track: _Array
    name: _Array
    texts: Mapping[int, _Array] = field(default_factory=dict)
    numbers: Mapping[int, _Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start_ns)

    def encoded(self, rows: slice) -> Rows:
        """The packets of some slices, one slice a row."""
        start, end, track = self.start_ns[rows], self.end_ns[rows], _track(self.track[rows])
        arguments = [_text_argument(key, values[rows]) for key, values in self.texts.items()]
        arguments += [_number_argument(key, values[rows]) for key, values in self.numbers.items()]
        name = uint_column(_NAME_IID, self.name[rows], _ID_BYTES)
        begins = _events(start, uint_field(_TYPE, _BEGIN), track, name, *arguments)
        return rows_of(len(start), begins, _events(end, uint_field(_TYPE, _END), track))


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of counters, columnar: time stamps, track uuids, and values in each track's unit."""

    time_ns: _Array
    track: _Array
    value: _Array

    def __len__(self) -> int:
        return len(self.time_ns)

    def encoded(self, rows: slice) -> Rows:
        """The packets of some readings, one a row."""
        value = double_column(_DOUBLE_VALUE, self.value[rows])
        return _events(self.time_ns[rows], uint_field(_TYPE, _COUNTER_VALUE), _track(self.track[rows]), value)


def _events(time_ns: _Array, *parts: bytes | Rows) -> Rows:
    event = message_column(_TRACK_EVENT, rows_of(len(time_ns), *parts))
    packet = rows_of(len(time_ns), uint_column(_TIMESTAMP, time_ns, _TIME_BYTES), _FROM_INTERNED, event)
    return message_column(_TRACE_PACKET, packet)


def _track(track: _Array) -> Rows:
    return uint_column(_TRACK_UUID, track, _ID_BYTES)


def _text_argument(key: int, values: _Array) -> Rows:
    text = uint_column(_ANNOTATION_TEXT_IID, values, _ID_BYTES)
    return message_column(_ANNOTATION, rows_of(len(values), uint_field(_ANNOTATION_NAME_IID, key), text))


def _number_argument(key: int, values: _Array) -> Rows:
    number = uint_column(_ANNOTATION_UINT, values, _UINT_BYTES)
    return message_column(_ANNOTATION, rows_of(len(values), uint_field(_ANNOTATION_NAME_IID, key), number))
