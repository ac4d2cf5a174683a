"""Python's side of the fake libcuda."""

from __future__ import annotations

import ctypes
from pathlib import Path

__all__ = ["FakeCuda"]


class FakeCuda:
    """A loaded fake; a file of its own gives it a state of its own."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)
        self._library.fake_cuda_get.restype = ctypes.c_int64

    def set(self, name: str, value: int) -> None:
        self._library.fake_cuda_set(name.encode(), ctypes.c_int64(value))

    def get(self, name: str) -> int:
        return int(self._library.fake_cuda_get(name.encode()))

    def make_current(self, is_current: bool) -> None:
        """Whether the calling thread has a context."""
        self._library.fake_cuda_make_current(int(is_current))
