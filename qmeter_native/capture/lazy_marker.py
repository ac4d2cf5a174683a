"""A step marker that is loaded when the engine launches the first one, in the context that is current there."""

from __future__ import annotations

from typing import Any

__all__ = ["LazyMarker"]


class LazyMarker:
    """Callable as ``marker(stream, sequence)``; see `StepSink`.

    A kernel can only be loaded into a CUDA context, and the engine creates that after it was given its sink. The first
    fault ends marking, not the engine: ``failure`` holds its words (None without one), and attribution finds that the
    steps have lost their markers.

    Args:
        native: The extension's module.
    """

    def __init__(self, native: Any) -> None:
        self._native = native
        self._marker: Any = None
        self.failure: str | None = None

    def __call__(self, stream: int, sequence: int) -> None:
        """Launch marker ``sequence`` on ``stream``, a ``CUstream`` handle."""
        if self.failure is not None:
            return
        try:
            if self._marker is None:
                self._marker = self._native.StepMarker()
            self._marker.launch(stream, sequence)
        except self._native.NativeFault as fault:
            self.failure = str(fault.args[0])
