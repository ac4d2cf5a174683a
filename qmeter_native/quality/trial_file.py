"""Trials as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from qmeter_native.errors import TrialError
from qmeter_native.model.trial import Trial, trials_from_dict, trials_to_dict

__all__ = ["load_trials", "save_trials"]


def save_trials(trials: Sequence[Trial], path: Path) -> None:
    """Write a document; what was at the path before is there until it is whole.

    Raises:
        TrialError: The file cannot be written.
    """
    text = json.dumps(trials_to_dict(trials), indent=1, ensure_ascii=False, allow_nan=False)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise TrialError(f"{path} cannot be written: {error.strerror}", "Choose another file.") from error


def load_trials(path: Path) -> tuple[Trial, ...]:
    """Read a document.

    Raises:
        TrialError: There is none, or it is foreign, damaged or too new.
    """
    hint = "`qmeter-native quality -o FILE.json` makes one."
    try:
        return trials_from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise TrialError(f"{path} cannot be read: {error.strerror}", hint) from error
    except ValueError as error:
        raise TrialError(f"{path} is no JSON: {error}", hint) from error
