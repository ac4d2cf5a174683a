"""``manifest.json``: a `Manifest` and the list of the capture's files, as JSON."""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from qmeter_native.errors import CaptureNotFoundError, DamagedCaptureError, ForeignCaptureError, NewerSchemaError
from qmeter_native.model.manifest import DeviceInfo, EngineInfo, LossReport, Manifest, ProcessInfo, Validity
from qmeter_native.storage.schema import FORMAT, MANIFEST_FILE, SCHEMA_VERSION, SPOOL_FOLDER, SPOOL_SUFFIX

__all__ = ["TableFile", "crc32_of", "manifest_json", "read_manifest"]

_T = TypeVar("_T")
_COPY_HINT: Final = "Copy the capture again from where it was made, or record it again."
_CRC_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class TableFile:
    """One Parquet file of a capture, as the manifest lists it."""

    table: str
    file: str
    rows: int
    bytes: int
    crc32: int
    process: int | None = None


def crc32_of(path: Path) -> int:
    """CRC-32 (zlib's) of a file's content."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CRC_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def manifest_json(manifest: Manifest, files: list[TableFile]) -> str:
    """The text of ``manifest.json``."""
    document = {"format": FORMAT, **asdict(manifest), "tables": [asdict(file) for file in files]}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_manifest(path: Path) -> tuple[Manifest, list[TableFile]]:
    """The manifest of the capture at folder ``path``, and its files.

    Raises:
        CaptureNotFoundError, ForeignCaptureError, DamagedCaptureError, NewerSchemaError: See `read_capture`.
    """
    document = _document(path)
    version = document.get("schema_version")
    if not isinstance(version, int):
        raise DamagedCaptureError(f"{path / MANIFEST_FILE} has no schema_version", _COPY_HINT)
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has capture format {version}; this qmeter-native reads up to {SCHEMA_VERSION}",
            "Update qmeter-native.",
        )
    try:
        return _manifest(document), [_from_json(TableFile, entry) for entry in document["tables"]]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCaptureError(f"{path / MANIFEST_FILE} is incomplete: {error}", _COPY_HINT) from error


def _document(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CaptureNotFoundError(f"there is no capture at {path}", "Check the path; a capture is a folder NAME.qmt.")
    if not path.is_dir():
        raise ForeignCaptureError(
            f"{path} is a file, and a capture of qmeter-native is a folder", "Name the folder NAME.qmt itself."
        )
    try:
        document = json.loads((path / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        raise _no_manifest(path) from None
    except (ValueError, OSError) as error:
        raise DamagedCaptureError(f"{path / MANIFEST_FILE} cannot be read: {error}", _COPY_HINT) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ForeignCaptureError(
            f"{path / MANIFEST_FILE} is not the manifest of a qmeter-native capture", "Name the folder of a capture."
        )
    return document


def _no_manifest(path: Path) -> ForeignCaptureError | DamagedCaptureError:
    if any((path / SPOOL_FOLDER).glob(f"*{SPOOL_SUFFIX}")):
        return DamagedCaptureError(
            f"{path} was never finished: it holds spools of a run that was killed, and no {MANIFEST_FILE}",
            f"Recover it with: qmeter-native report {path}",
        )
    return ForeignCaptureError(
        f"{path} is a folder, but no capture of qmeter-native: it has no {MANIFEST_FILE}",
        "Name the folder of a capture, NAME.qmt.",
    )


def _manifest(document: dict[str, Any]) -> Manifest:
    nested = {
        "devices": tuple(_from_json(DeviceInfo, entry) for entry in document["devices"]),
        "processes": tuple(_process(entry) for entry in document["processes"]),
        "engine": None if document.get("engine") is None else _from_json(EngineInfo, document["engine"]),
        "loss": _from_json(LossReport, document.get("loss", {})),
        "validity": tuple(_from_json(Validity, entry) for entry in document.get("validity", [])),
    }
    return _from_json(Manifest, {**document, **nested})


def _process(entry: dict[str, Any]) -> ProcessInfo:
    info = _from_json(ProcessInfo, entry)
    offsets = info.clock_offset_range_ns
    range_ns = None if offsets is None else (int(offsets[0]), int(offsets[1]))
    return replace(info, gpu_uuids=tuple(info.gpu_uuids), clock_offset_range_ns=range_ns)


def _from_json(cls: type[_T], entry: dict[str, Any]) -> _T:
    """A dataclass from a JSON object; keys that it does not know are left out."""
    known = {spec.name for spec in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{key: value for key, value in entry.items() if key in known})
