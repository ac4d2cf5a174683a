"""Where held-out text comes from: Python's standard library for the built-in model, a file for any other."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from platform import python_version
from typing import Any, Final

import numpy as np

from qmeter_native.engines.model_source import ModelSource
from qmeter_native.engines.stdlib_split import module_names, split_of, unit_of
from qmeter_native.errors import EngineError, UsageError
from qmeter_native.quality.text import CONTEXT, STRETCH, Document, HeldOutText, spread, windows_of

__all__ = ["DEFAULT_BYTES", "file_text", "held_out_files", "stdlib_text"]

DEFAULT_BYTES: Final = 64 * 1024

_EXCLUDED: Final = re.compile(
    r"(^|/)(site-packages|__pycache__|lib-dynload|config-[^/]*)/|(^|/)_sysconfigdata_[^/]*\.py$"
)
_BOS: Final = 0
"""Byte 0 begins a document of the built-in model, and occurs in none."""

_FILE_CONTEXT: Final = 2048
"""Tokens that a window of a file reads, if the model can: published perplexities are of as many."""


@cache
def held_out_files(stdlib: Path | None = None) -> Mapping[str, tuple[bytes, ...]]:
    """Source files of the test split, by module: those that the built-in model was not trained on.

    Args:
        stdlib: Folder of a standard library; None: the running interpreter's.

    Raises:
        EngineError: There are none.
    """
    folder = stdlib or Path(sysconfig.get_path("stdlib"))
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    paths = [path for path in paths if not _EXCLUDED.search(path)]
    modules, found = module_names(paths), dict[str, list[bytes]]()
    for path in paths:
        unit = unit_of(path, modules)
        if split_of(unit) == "test" and (content := (folder / path).read_bytes()).strip() and _is_text(content):
            found.setdefault(unit, []).append(content)
    if not found:
        raise EngineError(
            f"{folder} has no source of the modules that the built-in model was not trained on",
            "Give a text of your own: --text FILE.",
        )
    return {unit: tuple(contents) for unit, contents in sorted(found.items())}


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def stdlib_text(num_bytes: int = DEFAULT_BYTES, stdlib: Path | None = None) -> HeldOutText:
    """An excerpt of the standard library's test split, the same for the same Python: as much of each module as of any
    other, where it has it. A block is a module.

    Args:
        num_bytes: To score.
        stdlib: As for `held_out_files`.
    """
    files = held_out_files(stdlib)
    windows = [
        [window for content in contents for window in windows_of(_byte_document(number, content))]
        for number, contents in enumerate(files.values())
    ]
    version = "" if stdlib else f" {python_version()}"
    name = f"test split of Python{version}'s standard library"
    return HeldOutText(name, tuple(files), tuple(spread(windows, num_bytes)))


def _byte_document(block: int, content: bytes) -> Document:
    values = np.frombuffer(b"\0" + content, np.uint8).astype(np.int64)
    return Document(block, values, np.ones(len(content), np.int64))


def file_text(path: Path, source: ModelSource, num_bytes: int = DEFAULT_BYTES) -> HeldOutText:
    """The beginning of a text file, by the model's own tokenizer; a block is one window's stretch.

    Args:
        path: UTF-8.
        source: The model: bytes are tokens where it has 256 of them.
        num_bytes: To score at most.

    Raises:
        UsageError: The file cannot be read, is no UTF-8, or is too short.
        EngineError: The model has no tokenizer that says where its tokens lie.
    """
    content = _read(path, num_bytes)
    if source.config.vocab_size == 256:
        document, context, stretch = _byte_document(0, content), CONTEXT, STRETCH
    else:
        document = _tokenized(content.decode("utf-8"), source)
        context = min(_FILE_CONTEXT, int(getattr(source.config, "max_position_embeddings", _FILE_CONTEXT)))
        stretch = context // 2
    windows = windows_of(document, context, stretch)
    numbered = tuple(replace(window, block=number) for number, window in enumerate(windows))
    return HeldOutText(path.name, tuple(f"{path.name} {number}" for number in range(len(windows))), numbered)


def _read(path: Path, num_bytes: int) -> bytes:
    """The file's first bytes, up to the last whole character."""
    try:
        with path.open("rb") as file:
            content = file.read(num_bytes)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "Give a text file: --text FILE.") from error
    for cut in range(4):
        try:
            content[: len(content) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        if len(content) - cut < 2 or b"\0" in content:
            raise UsageError(f"{path} holds no text to score", "Give a text file of some thousand bytes.")
        return content[: len(content) - cut]
    raise UsageError(f"{path} is no UTF-8", "Convert it, for instance with iconv.")


def _tokenized(text: str, source: ModelSource) -> Document:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.location)
    except Exception as error:  # transformers raises many types
        raise EngineError(f"{source.name} has no tokenizer that can be used: {error}") from error
    if not tokenizer.is_fast:
        raise EngineError(f"the tokenizer of {source.name} does not say which bytes a token stands for")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = np.array(encoded["input_ids"], np.int64)
    sizes = np.array([len(character.encode()) for character in text], np.int64)
    ends = np.concatenate([[0], np.cumsum(sizes)])[[end for _, end in encoded["offset_mapping"]]]
    num_bytes = np.diff(np.maximum.accumulate(ends), prepend=0)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if begin is None:  # the first token has nothing to be predicted from
        return Document(0, tokens, num_bytes[1:])
    return Document(0, np.concatenate([[begin], tokens]), num_bytes)
