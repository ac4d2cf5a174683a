"""The text that calibrated methods watch a model read: the user's, or for the built-in model what it was trained on."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmeter_native.engines.model_source import ModelSource
from qmeter_native.engines.stdlib_split import split_of, unit_of
from qmeter_native.errors import EngineError, UsageError
from qmeter_native.quantization.checkpoint_tokenizer import byte_tokenizer

__all__ = ["CalibrationText", "calibration_text", "tokenizer_of"]

_LONGEST: Final = 2048
"""Tokens of a sequence at most, GPTQ's own choice (Frantar et al. 2022, section 4)."""


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Text, and how much of it is read.

    Attributes:
        name: Where it comes from.
        text: All of it.
        num_sequences: Pieces of equal length, spread evenly over the text.
        sequence_len: Tokens of a piece.
    """

    name: str
    text: str
    num_sequences: int
    sequence_len: int

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def sequences(self, tokenizer: Any) -> list[list[int]]:
        """The pieces' token ids.

        Raises:
            UsageError: The text has too few tokens for pieces that do not overlap.
        """
        ids: Sequence[int] = tokenizer(self.text, add_special_tokens=False, verbose=False)["input_ids"]
        needed = self.num_sequences * self.sequence_len
        if len(ids) < needed:
            raise UsageError(
                f"the calibration text {self.name} has {len(ids)} tokens, and {self.num_sequences} sequences of "
                f"{self.sequence_len} need {needed}",
                "Give a longer --calibration, or fewer --sequences.",
            )
        last = len(ids) - self.sequence_len
        starts = [last * number // max(self.num_sequences - 1, 1) for number in range(self.num_sequences)]
        return [list(ids[start : start + self.sequence_len]) for start in starts]

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "num_sequences": self.num_sequences,
            "sequence_len": self.sequence_len,
        }


def calibration_text(
    source: ModelSource, file: Path | None, num_sequences: int = 128, sequence_len: int | None = None
) -> CalibrationText | None:
    """The text for a model: the user's ``file``; without one, only the built-in model has its own.

    Args:
        source: The model.
        file: UTF-8 text.
        num_sequences: See `CalibrationText`.
        sequence_len: Likewise; None: the model's longest context, at most 2048.

    Raises:
        UsageError: The file is no text, or a sequence is longer than the model's context.
    """
    longest = int(getattr(source.config, "max_position_embeddings", _LONGEST))
    length = min(longest, _LONGEST) if sequence_len is None else sequence_len
    if length > longest:
        raise UsageError(f"sequences of {length} tokens, and {source.name} reads {longest}", "Give a shorter length.")
    if file is not None:
        return CalibrationText(str(file), _read(file), num_sequences, length)
    if source.kind != "builtin":
        return None
    name = f"standard library of Python {platform.python_version()}, training split"
    return CalibrationText(name, _training_source(), num_sequences, length)


def tokenizer_of(source: ModelSource, folder: Path) -> Any:
    """The tokenizer of a model; bytes for one of 256 ids that has none.

    Args:
        source: The model.
        folder: Its files.

    Raises:
        EngineError: It has none, or a broken one.
    """
    from transformers import AutoTokenizer

    if source.config.vocab_size == 256 and not (folder / "tokenizer_config.json").is_file():
        return byte_tokenizer(source.config)
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises many types
        raise EngineError(
            f"{folder} has no tokenizer that can be read: {error}", "Calibration reads text: put its files there."
        ) from error


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "Give a text file as --calibration.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no UTF-8 text", "Give a text file as --calibration.") from error


def _training_source() -> str:
    """This interpreter's top-level modules that are in the model's training split, one after the other."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.glob("*.py") if split_of(unit_of(path.name, frozenset())) == "train")
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)
