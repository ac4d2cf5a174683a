"""Runs a model over held-out text: bits of each block, and distances from the baseline on the same tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qmeter_native.errors import EngineError
from qmeter_native.quality.statistics import kl_divergence, top1_agreement
from qmeter_native.quality.text import HeldOutText, Window

__all__ = ["BlockScores", "Interrupted", "Reference", "score", "score_reference"]

BATCH: Final = 8
"""Windows at a time: on two cores 8 are as fast a token as 32, and Ctrl-C is heard after a second."""

Floats: TypeAlias = NDArray[np.float64]
Progress: TypeAlias = Callable[[int, int], None]
"""Told tokens done and tokens in all; may raise `Interrupted`."""


class Interrupted(Exception):  # noqa: N818  # as KeyboardInterrupt is no error either
    """The user wants what is there, and no more."""


@dataclass(frozen=True, slots=True)
class BlockScores:
    """Sums over each block, ``[blocks]``.

    Attributes:
        num_bytes: Of the text.
        num_tokens: Of the text.
        nats: Negative log-likelihood of the text.
        kl_nats: Of the baseline's distribution of each token from the method's; None of the baseline itself.
        num_agreeing: Tokens of which both find the same likeliest; None of the baseline itself.
    """

    num_bytes: Floats
    num_tokens: Floats
    nats: Floats
    kl_nats: Floats | None = None
    num_agreeing: Floats | None = None

    @property
    def bits(self) -> Floats:
        """``nats`` in bits."""
        return np.asarray(self.nats / np.log(2.0))


@dataclass(frozen=True, slots=True)
class Reference:
    """The baseline: its scores, and log-probabilities of every token, float32 ``[rows, vocabulary]`` a batch."""

    scores: BlockScores
    log_probabilities: tuple[NDArray[np.float32], ...]


def score_reference(model: Any, text: HeldOutText, progress: Progress, batch: int = BATCH) -> Reference:
    """Score the baseline and keep what it predicts.

    Raises:
        EngineError: Its predictions do not fit into half of the free memory.
        Interrupted: ``progress`` wants it.
    """
    _check_memory(text, int(model.config.vocab_size))
    kept: list[NDArray[np.float32]] = []
    sums = np.zeros((3, len(text.blocks)))
    for windows, log_q in _predictions(model, text, progress, batch):
        kept.append(log_q)
        _add(sums, windows, log_q)
    return Reference(BlockScores(*sums), tuple(kept))


def score(model: Any, text: HeldOutText, reference: Reference, progress: Progress, batch: int = BATCH) -> BlockScores:
    """Score a model on the text that the baseline was scored on, in the same batches.

    Raises:
        Interrupted: ``progress`` wants it.
    """
    sums = np.zeros((5, len(text.blocks)))
    predictions = _predictions(model, text, progress, batch)
    for (windows, log_q), log_p in zip(predictions, reference.log_probabilities, strict=True):
        _add(sums, windows, log_q)
        rows = np.repeat([window.block for window in windows], windows[0].num_scored)
        kl = kl_divergence(log_p.astype(np.float64), log_q.astype(np.float64))
        np.add.at(sums[3], rows, kl)
        np.add.at(sums[4], rows, top1_agreement(log_p, log_q))
    return BlockScores(*sums)


def _add(sums: Floats, windows: list[Window], log_q: NDArray[np.float32]) -> None:
    """Add bytes, tokens and nats of a batch to the sums of their blocks."""
    targets = np.concatenate([window.tokens[-window.num_scored :] for window in windows])
    nats = -log_q[np.arange(len(targets)), targets].astype(np.float64).reshape(len(windows), -1).sum(axis=1)
    blocks = [window.block for window in windows]
    np.add.at(sums[0], blocks, [window.num_bytes for window in windows])
    np.add.at(sums[1], blocks, windows[0].num_scored)
    np.add.at(sums[2], blocks, nats)


def _predictions(
    model: Any, text: HeldOutText, progress: Progress, batch: int
) -> Iterator[tuple[list[Window], NDArray[np.float32]]]:
    """Batches, and the log-probabilities of what is scored of them: rows window by window."""
    import torch

    done, total = 0, text.num_tokens
    for windows in text.batches(batch):
        progress(done, total)
        tokens = torch.from_numpy(np.stack([window.tokens[:-1] for window in windows])).to(model.device)
        with torch.inference_mode():
            logits = model(input_ids=tokens, use_cache=False, logits_to_keep=windows[0].num_scored).logits
            log_q = torch.log_softmax(logits.float(), dim=-1).flatten(0, 1).cpu().numpy()
        yield windows, log_q
        done += len(log_q)
    progress(done, total)


def _check_memory(text: HeldOutText, vocab_size: int) -> None:
    needed = text.num_tokens * vocab_size * 4
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free / 2:
        raise EngineError(
            f"the baseline's predictions of {text.num_tokens} tokens take {needed / 1e9:.1f} GB, "
            f"and this machine has {free / 1e9:.1f} GB of free memory",
            f"Score less text: --bytes {int(text.num_bytes * free / 2 / needed)}.",
        )
