"""Prompts of a workload: source code for a byte-level model, random token ids for any other."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np

from qmeter_native.engines.protocol import Vocabulary
from qmeter_native.engines.stdlib_split import split_of, unit_of
from qmeter_native.workload.workload import Workload

__all__ = ["prompts_of"]


def prompts_of(workload: Workload, vocabulary: Vocabulary, num_prompts: int) -> list[list[int]]:
    """Seeded prompts of ``workload.input_len`` token ids each; no two begin alike unless by chance.

    A byte-level model is given excerpts from modules of the running Python's standard library that
    `builtin:stdlib-lm` was not trained on. Any other model is given ids drawn uniformly from those that are not
    special: their text means nothing, but the computation is the same.
    """
    generator = np.random.default_rng((workload.seed, 1))
    if vocabulary.is_bytes:
        text = np.frombuffer(_held_out_source(), np.uint8)
        if len(text) > workload.input_len:
            starts = generator.integers(len(text) - workload.input_len, size=num_prompts)
            return [text[start : start + workload.input_len].tolist() for start in starts]
    ordinary = np.array([token for token in range(vocabulary.size) if token not in vocabulary.special_ids])
    ids: list[list[int]] = generator.choice(ordinary, (num_prompts, workload.input_len)).tolist()
    return ids


def _held_out_source() -> bytes:
    """The held-out top-level modules of this interpreter's standard library, one after the other."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.glob("*.py") if split_of(unit_of(path.name, frozenset())) == "test")
    return b"\n".join(path.read_bytes() for path in paths)
