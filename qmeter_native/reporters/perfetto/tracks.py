"""The tree of tracks that the trace's viewer shows."""

from __future__ import annotations

from qmeter_native.reporters.perfetto.packets import track_packet

__all__ = ["Tracks"]


class Tracks:
    """Hands out track uuids; tracks are shown in the order in which they were added under the same parent."""

    def __init__(self) -> None:
        self._packets: list[bytes] = []

    def add(self, name: str, parent: int = 0, unit: str | None = None) -> int:
        """Describe a track under ``parent`` (0: at the top) and return its uuid; with a ``unit`` it is a counter."""
        uuid = len(self._packets) + 1
        self._packets.append(track_packet(uuid, name, parent=parent, rank=uuid, unit=unit))
        return uuid

    def packets(self) -> bytes:
        """The descriptors of all tracks; they must precede the events."""
        return b"".join(self._packets)
