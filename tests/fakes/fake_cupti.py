"""Python's side of the fake libcupti: what `fake_cupti.h` declares."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["CONCURRENT_KERNEL", "MEMCPY", "MEMCPY2", "MEMSET", "RUNTIME", "FakeCupti"]

MEMCPY, MEMSET, RUNTIME, CONCURRENT_KERNEL, MEMCPY2 = 1, 2, 5, 10, 22


class _Activity(ctypes.Structure):
    _fields_: ClassVar = [
        ("kind", ctypes.c_int32),
        ("lane", ctypes.c_int32),
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("name", ctypes.c_void_p),
        ("grid", ctypes.c_int32 * 3),
        ("block", ctypes.c_int32 * 3),
        ("static_shared", ctypes.c_int32),
        ("dynamic_shared", ctypes.c_int32),
        ("device", ctypes.c_uint32),
        ("stream", ctypes.c_uint32),
        ("graph", ctypes.c_uint32),
        ("correlation", ctypes.c_uint32),
        ("graph_node", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("registers", ctypes.c_uint16),
        ("copy_kind", ctypes.c_uint8),
    ]


class FakeCupti:
    """A loaded fake. Every test begins with `reset`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)
        self._library.fake_cupti_get.restype = ctypes.c_int64
        self._names: dict[str, Any] = {}

    def reset(self) -> None:
        self._library.fake_cupti_reset()

    def set(self, name: str, value: int) -> None:
        assert self._library.fake_cupti_set(name.encode(), ctypes.c_int64(value)), name

    def get(self, name: str) -> int:
        return int(self._library.fake_cupti_get(name.encode()))

    def name_buffer(self, name: str) -> Any:
        """The memory behind a kernel's name, the same for the same name."""
        return self._names.setdefault(name, ctypes.create_string_buffer(name.encode(), 256))

    def emit(self, kind: int = CONCURRENT_KERNEL, *, count: int = 1, step_ns: int = 1000, **fields: Any) -> None:
        self._library.fake_cupti_emit(
            ctypes.byref(self._activity(kind, fields)), ctypes.c_uint64(count), ctypes.c_uint64(step_ns)
        )

    def emit_raw(self, records: bytes) -> None:
        assert self._library.fake_cupti_emit_raw(records, ctypes.c_uint64(len(records))), "no buffer can hold them"

    def storm(self, *, num_threads: int, count: int, **fields: Any) -> None:
        self._library.fake_cupti_storm(
            ctypes.byref(self._activity(CONCURRENT_KERNEL, fields)),
            ctypes.c_uint32(num_threads),
            ctypes.c_uint64(count),
        )

    def drop(self, count: int) -> None:
        self._library.fake_cupti_drop(ctypes.c_uint64(count))

    def _activity(self, kind: int, fields: dict[str, Any]) -> _Activity:
        values = {"start": 1_000, "end": 1_500, "name": "kernel", "grid": (1, 1, 1), "block": (32, 1, 1), **fields}
        name = values.pop("name")
        text = self.name_buffer(name) if isinstance(name, str) else name
        return _Activity(kind=kind, name=ctypes.addressof(text), **values)
