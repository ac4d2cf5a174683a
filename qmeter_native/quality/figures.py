"""Sums over blocks as figures with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from qmeter_native.model.estimate import Estimate
from qmeter_native.quality.programs import Beginning, is_python
from qmeter_native.quality.scoring import BlockScores, Floats
from qmeter_native.quality.statistics import MIN_BLOCKS, BlockBootstrap, Interval, wilson_interval

__all__ = ["baseline_figures", "change_of", "method_figures", "parse_figures", "parsed_by_block"]

_BOOTSTRAP: Final = "measured: 95 % of block bootstrap"
_PAIRED: Final = "measured: 95 % of paired block bootstrap"
_WILSON: Final = "measured: 95 % by Wilson"
_TOO_FEW: Final = f"a text of fewer than {MIN_BLOCKS} blocks gives no interval"
_ITSELF: Final = Estimate.missing("it is the baseline")


def baseline_figures(scores: BlockScores, bootstrap: BlockBootstrap) -> dict[str, Estimate]:
    """Fields of `Quality` that need no baseline; of the others, why they are missing."""
    nats = bootstrap.ratio(scores.nats, scores.num_tokens)
    ends = [None if end is None else math.exp(end) for end in (nats.low, nats.high)]
    return {
        "bits_per_byte": _estimate(bootstrap.ratio(scores.bits, scores.num_bytes), _BOOTSTRAP),
        "perplexity": _estimate(Interval(math.exp(nats.value), *ends), _BOOTSTRAP),
        "bits_per_byte_change": _ITSELF,
        "kl_nats_per_token": _ITSELF,
        "top1_agreement": _ITSELF,
    }


def method_figures(scores: BlockScores, baseline: BlockScores, bootstrap: BlockBootstrap) -> dict[str, Estimate]:
    """The same fields of a method, scored against a baseline."""
    assert scores.kl_nats is not None
    assert scores.num_agreeing is not None
    return baseline_figures(scores, bootstrap) | {
        "bits_per_byte_change": change_of(scores, baseline, bootstrap),
        "kl_nats_per_token": _estimate(bootstrap.ratio(scores.kl_nats, scores.num_tokens), _BOOTSTRAP),
        "top1_agreement": _estimate(bootstrap.ratio(scores.num_agreeing, scores.num_tokens), _BOOTSTRAP),
    }


def change_of(scores: BlockScores, baseline: BlockScores, bootstrap: BlockBootstrap) -> Estimate:
    """Bits per byte less the baseline's, on the same draws of blocks."""
    return _estimate(bootstrap.ratio(scores.bits - baseline.bits, scores.num_bytes), _PAIRED)


def parsed_by_block(beginnings: Sequence[Beginning], completions: Sequence[bytes], num_blocks: int) -> Floats:
    """Programs that are Python and programs in all, float64 ``[2, blocks]``.

    Args:
        beginnings: What was completed.
        completions: As many to each, first those of all beginnings, then the next.
        num_blocks: Modules.
    """
    sums = np.zeros((2, num_blocks))
    for number, completion in enumerate(completions):
        beginning = beginnings[number % len(beginnings)]
        sums[:, beginning.block] += (is_python(beginning.definition, completion), 1)
    return sums


def parse_figures(parsed: Floats, baseline: Floats | None) -> dict[str, Estimate]:
    """Fields of `Quality` about programs.

    Args:
        parsed: Of `parsed_by_block`.
        baseline: Likewise; None of the baseline itself.
    """
    share = wilson_interval(int(parsed[0].sum()), int(parsed[1].sum()))
    change = _ITSELF
    if baseline is not None:
        has_any = parsed[1] > 0
        paired = BlockBootstrap.of(int(has_any.sum()))
        change = _estimate(paired.ratio((parsed[0] - baseline[0])[has_any], parsed[1][has_any]), _PAIRED)
    return {"parse_share": _estimate(share, _WILSON), "parse_share_change": change}


def _estimate(interval: Interval, method: str) -> Estimate:
    reason = _TOO_FEW if interval.low is None else None
    return Estimate(interval.value, interval.low, interval.high, method, reason)
