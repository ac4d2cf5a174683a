"""Intervals and distances of distributions. Pure: numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BlockBootstrap", "Interval", "kl_divergence", "top1_agreement", "wilson_interval"]

Floats: TypeAlias = NDArray[np.float64]

Z95: Final = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 % on both sides."""

MIN_BLOCKS: Final = 5
"""Fewer blocks than this say nothing of how blocks differ: the 95 % range of their draws is hardly ever left."""

_LEAST: Final = -1e300
"""A logarithm in place of minus infinity, which cannot be multiplied by zero."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the ends of its 95 % interval; the ends are None where there are too few blocks for one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class BlockBootstrap:
    """Intervals of ratios of sums over blocks, such as bits over bytes, by drawing whole blocks with replacement.

    Tokens of one file or module are alike, so that tokens are no independent observations; blocks nearly are. All
    figures are of the same draws: what two methods have in common cancels in the interval of their difference.

    Attributes:
        draws: int ``[draws, blocks]``: how often each draw took each block.
    """

    draws: NDArray[np.int64]

    @classmethod
    def of(cls, num_blocks: int, num_draws: int = 2_000, seed: int = 0) -> BlockBootstrap:
        """Draws of as many blocks as there are (Efron's percentile bootstrap)."""
        rng = np.random.default_rng(seed)
        return cls(rng.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), size=num_draws))

    def ratio(self, above: Floats, below: Floats) -> Interval:
        """``sum(above) / sum(below)``, both ``[blocks]``.

        ``above`` may itself be a difference, of two methods on the same blocks: then this is a paired interval.
        """
        value = float(above.sum() / below.sum())
        if len(above) < MIN_BLOCKS:
            return Interval(value, None, None)
        totals = self.draws @ below
        ratios = (self.draws @ above)[totals > 0] / totals[totals > 0]
        low, high = np.percentile(ratios, [2.5, 97.5])
        return Interval(value, float(low), float(high))


def wilson_interval(successes: int, trials: int) -> Interval:
    """A share and its 95 % score interval (Wilson 1927), which holds near 0 and 1 and for few trials.

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no share")
    share, z2 = successes / trials, Z95**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials)) / (1 + z2)
    return Interval(share, min(max(0.0, centre - half), share), max(min(1.0, centre + half), share))


def kl_divergence(log_p: Floats, log_q: Floats) -> Floats:
    """``sum p log(p / q)`` of each row, in nats.

    Args:
        log_p: Logarithms of probabilities ``[tokens, vocabulary]``, the baseline's.
        log_q: Likewise, the method's.

    Returns:
        ``[tokens]``; never below 0, which rounding of nearly equal rows would otherwise go.
    """
    finite = np.maximum(log_p, _LEAST)  # 0 · log 0 is 0
    terms = np.exp(log_p) * (finite - np.maximum(log_q, _LEAST))
    return np.asarray(np.maximum(terms.sum(axis=-1), 0.0))


def top1_agreement(log_p: NDArray[Any], log_q: NDArray[Any]) -> NDArray[np.bool_]:
    """Of each row, whether both find the same token likeliest; ``[tokens]``."""
    return np.asarray(log_p.argmax(axis=-1) == log_q.argmax(axis=-1))
