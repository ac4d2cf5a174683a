"""Reading a capture. Needs neither a GPU nor the compiled extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from qmeter_native.errors import CaptureError, DamagedCaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.model.table import Table
from qmeter_native.model.tables import TABLES, KernelTable
from qmeter_native.storage.manifest import TableFile, crc32_of, read_manifest

__all__ = ["read_capture"]

_T = TypeVar("_T", bound=Table)
_COPY_HINT: Final = "Copy the capture again from where it was made, or record it again."


def read_capture(path: str | Path) -> Capture:
    """Read the capture in folder ``path`` and check every file against the manifest.

    Raises:
        CaptureNotFoundError: Nothing is there.
        ForeignCaptureError: A file, or a folder that no qmeter-native wrote.
        NewerSchemaError: A newer qmeter-native wrote it.
        DamagedCaptureError: A file is missing, truncated or altered (named), or the run was never finished.
    """
    path = Path(path)
    manifest, files = read_manifest(path)
    for file in files:
        _check(path / file.file, file)
    tables: dict[str, Any] = {}
    for kind in TABLES:
        of_kind = [file for file in files if file.table == kind.NAME]
        if of_kind:
            tables[kind.NAME] = _read(kind, path, of_kind)
    return Capture(manifest, **tables)


def _check(path: Path, file: TableFile) -> None:
    try:
        size = path.stat().st_size
        crc = crc32_of(path) if size == file.bytes else None
    except FileNotFoundError:
        raise DamagedCaptureError(f"{path} is missing from the capture", _COPY_HINT) from None
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error
    if size != file.bytes:
        raise DamagedCaptureError(f"{path} is {size} bytes long instead of {file.bytes}", _COPY_HINT)
    if crc != file.crc32:
        raise DamagedCaptureError(f"{path} does not match its checksum", _COPY_HINT)


def _read(kind: type[_T], path: Path, files: list[TableFile]) -> _T:
    from qmeter_native.storage.table_files import read_table

    return read_table(kind, [(path / file.file, file.rows) for file in files], by_start=kind is KernelTable)
