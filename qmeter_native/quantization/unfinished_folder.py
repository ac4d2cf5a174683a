"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qmeter_native.errors import EngineError, UsageError

__all__ = ["unfinished_folder"]


@contextmanager
def unfinished_folder(folder: Path, needed_bytes: int) -> Iterator[Path]:
    """A hidden folder beside ``folder`` to write to. It gets that name when all is done, and vanishes on any error.

    One that a killed process left is replaced.

    Args:
        folder: To create.
        needed_bytes: What will be written, about.

    Raises:
        UsageError: ``folder`` exists.
        EngineError: There is too little space, or it cannot be written.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already", "Choose another folder, or remove it first.")
    hidden = folder.absolute().with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        _check_space(hidden, needed_bytes)
        yield hidden
        hidden.rename(folder)
    except OSError as error:
        raise EngineError(
            f"{folder} cannot be written: {error.strerror or error}", "Check space and rights."
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _check_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to begin what will not fit.

    Raises:
        EngineError: Naming what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise EngineError(
            f"the checkpoint needs {needed_bytes / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free",
            "Make room, choose another folder, or a smaller model.",
        )
