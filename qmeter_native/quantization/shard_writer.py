"""Writes a checkpoint's tensors to safetensors files as they come, holding one file's worth in memory at most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["ShardWriter"]

_SHARD_BYTES: Final = 1 << 29


class ShardWriter:
    """``model-00001-of-0000N.safetensors`` … and their index; N, which is in every name, is known when all are written.

    Args:
        folder: Where to write.
        shard_bytes: A file ends with the tensor that makes it as large.
    """

    def __init__(self, folder: Path, shard_bytes: int = _SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._pending: dict[str, Any] = {}
        self._memory: set[int] = set()
        self._pending_bytes = self._total_bytes = 0
        self._shards: list[list[str]] = []

    def add(self, tensors: Mapping[str, Any]) -> None:
        """Take tensors, by their full names, from any device."""
        for name, tensor in tensors.items():
            stored = tensor.detach().cpu().contiguous()
            size = stored.nbytes
            if stored.untyped_storage().nbytes() != size or stored.data_ptr() in self._memory:
                stored = stored.clone()  # safetensors writes no two tensors that share memory
            self._memory.add(stored.data_ptr())
            self._pending[name] = stored
            self._pending_bytes += size
            if self._pending_bytes >= self._shard_bytes:
                self._flush()

    def finish(self) -> int:
        """Write what is left, and the index; bytes of all tensors."""
        if self._pending or not self._shards:
            self._flush()
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards, 1):
            file = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            (self._folder / _unnumbered(number)).rename(self._folder / file)
            weight_map.update(dict.fromkeys(names, file))
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        path = self._folder / "model.safetensors.index.json"
        path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        return self._total_bytes

    def _flush(self) -> None:
        from safetensors.torch import save_file

        self._shards.append(list(self._pending))
        save_file(self._pending, self._folder / _unnumbered(len(self._shards)), metadata={"format": "pt"})
        self._total_bytes += self._pending_bytes
        self._pending, self._pending_bytes = {}, 0
        self._memory.clear()


def _unnumbered(number: int) -> str:
    return f"model-{number:05d}.safetensors"
