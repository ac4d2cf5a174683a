"""A raw CUPTI activity buffer as a file: what a test decodes without a GPU."""

from __future__ import annotations

import base64
import ctypes
import gzip
import json
import struct
from pathlib import Path
from typing import Any, Final

__all__ = ["save_buffer"]

_CONCURRENT_KERNEL: Final = 10
_NAME_OFFSET: Final = 104
"""Of the name pointer in every kernel record since CUPTI 12.0; ``csrc/abi/cupti.h``."""


def save_buffer(buffer: bytes, info: dict[str, Any], path: Path) -> None:
    """Write a buffer of this process and the kernel names it points to.

    In the file, a JSON document under gzip, each name pointer is replaced by the name's index in ``names``, and
    ``buffer`` is base64.

    Args:
        buffer: One of `KernelTracer.raw_buffers`, while the process that traced it still lives.
        info: The tracer's `KernelTracer.info`.
        path: The file.
    """
    library = ctypes.CDLL(info["path"])
    memory = ctypes.create_string_buffer(buffer, len(buffer))
    address = ctypes.addressof(memory)
    record = ctypes.c_void_p()
    names: dict[int, int] = {}
    texts: list[str] = []
    while library.cuptiActivityGetNextRecord(memory, ctypes.c_size_t(len(buffer)), ctypes.byref(record)) == 0:
        offset = (record.value or 0) - address
        if struct.unpack_from("<I", memory, offset)[0] != _CONCURRENT_KERNEL:
            continue
        (pointer,) = struct.unpack_from("<Q", memory, offset + _NAME_OFFSET)
        if pointer not in names:
            names[pointer] = len(texts)
            texts.append(ctypes.string_at(pointer).decode())
        struct.pack_into("<Q", memory, offset + _NAME_OFFSET, names[pointer])
    document = {
        "cupti_version": info["version"],
        "kernel_record_bytes": info["record_bytes"],
        "names": texts,
        "buffer": base64.b64encode(memory.raw).decode(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(json.dumps(document).encode())
