"""The safetensors files of a checkpoint's folder: which tensor is where, and each read when it is asked for."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from qmeter_native.errors import EngineError

__all__ = ["CheckpointFiles"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_INCOMPLETE_HINT = "The download may be incomplete: fetch the checkpoint again."


class CheckpointFiles:
    """Opens all files of a checkpoint, mapped into memory, not read.

    Args:
        folder: With ``model.safetensors``, or ``model.safetensors.index.json`` and the files it names.

    Raises:
        EngineError: A file is missing or broken, or a tensor is in two files or in none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._places: dict[str, tuple[Path, Any]] = {}
        self._unread: set[str] = set()
        try:
            for path in _paths(folder):
                self._open(path)
            _check_index(folder, self._places)
        except BaseException:
            self._stack.close()
            raise
        self._unread.update(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def root(self) -> Path:
        """The file that names all tensors: the index, or the only one."""
        index = self._folder / _INDEX
        return index if index.is_file() else self._folder / _SINGLE

    @property
    def names(self) -> frozenset[str]:
        """All tensors."""
        return frozenset(self._places)

    @property
    def unread(self) -> frozenset[str]:
        """Tensors that nobody has asked for."""
        return frozenset(self._unread)

    def file_of(self, name: str) -> Path:
        """Where a tensor is."""
        return self._places[name][0]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return tuple(self._places[name][1].get_slice(name).get_shape())

    def read(self, name: str, device: Any) -> Any:
        """A tensor, on ``device``."""
        path, file = self._places[name]
        self._unread.discard(name)
        try:
            return file.get_tensor(name).to(device)
        except Exception as error:  # safetensors raises its own type, for a type that this torch does not know too
            raise EngineError(f"{path}: tensor {name} cannot be read: {error}", _INCOMPLETE_HINT) from error

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        self._stack.close()

    def __enter__(self) -> CheckpointFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            file = self._stack.enter_context(safe_open(path, framework="pt"))
            names = list(file.keys())
        except (OSError, SafetensorError) as error:
            raise EngineError(f"{path} cannot be read: {error}", _INCOMPLETE_HINT) from error
        for name in names:
            if name in self._places:
                raise EngineError(f"tensor {name} is in two files: {self._places[name][0]} and {path}")
            self._places[name] = (path, file)


def _paths(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        return [folder / name for name in sorted(set(_weight_map(index).values()))]
    single = folder / _SINGLE
    if not single.is_file():
        raise EngineError(f"{folder} has neither {single.name} nor {_INDEX}", "Only safetensors are read.")
    return [single]


def _check_index(folder: Path, places: dict[str, tuple[Path, Any]]) -> None:
    index = folder / _INDEX
    if index.is_file():
        for name, file in _weight_map(index).items():
            if name not in places or places[name][0].name != file:
                raise EngineError(f"{folder / file} has no tensor {name}, and {_INDEX} says so", _INCOMPLETE_HINT)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{index} cannot be read: {error}", _INCOMPLETE_HINT) from error
