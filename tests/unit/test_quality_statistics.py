"""Intervals and distances: bootstrap over blocks, Wilson's interval, KL divergence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qmeter_native.quality.statistics import BlockBootstrap, Interval, kl_divergence, top1_agreement, wilson_interval

LOGITS = arrays(np.float64, (4, 6), elements=st.floats(-30, 30))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


@given(LOGITS, LOGITS)
def test_a_divergence_is_never_negative(first: np.ndarray, second: np.ndarray) -> None:
    assert (kl_divergence(log_softmax(first), log_softmax(second)) >= 0).all()


@given(LOGITS)
def test_equal_distributions_do_not_diverge_and_agree(logits: np.ndarray) -> None:
    log_p = log_softmax(logits)
    assert (kl_divergence(log_p, log_p) == 0).all()
    assert top1_agreement(log_p, log_p).all()


def test_a_divergence_of_two_coins_is_known() -> None:
    log_p, log_q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert kl_divergence(log_p, log_q) == pytest.approx(0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75))


def test_an_impossible_token_adds_nothing() -> None:
    log_p = np.array([[0.0, -np.inf]])
    assert kl_divergence(log_p, log_p) == 0


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    num_held, truth = 0, 0.9
    for _ in range(300):
        num_bytes = rng.integers(500, 3000, 30).astype(float)
        bits = num_bytes * (truth + 0.3 * rng.standard_normal(30))
        found = BlockBootstrap.of(30, 500).ratio(bits, num_bytes)
        assert found.low is not None
        assert found.high is not None
        num_held += found.low <= truth <= found.high
    assert 0.88 <= num_held / 300 <= 0.98  # 30 blocks: the percentile interval is a little too narrow


@settings(max_examples=30)
@given(arrays(np.float64, 12, elements=st.floats(1, 5000)), arrays(np.float64, 12, elements=st.floats(1, 5000)))
def test_an_interval_lies_around_its_figure_and_a_difference_of_equals_is_zero(
    bits: np.ndarray, num_bytes: np.ndarray
) -> None:
    bootstrap = BlockBootstrap.of(12, 400)
    found = bootstrap.ratio(bits, num_bytes)
    ratios = bits / num_bytes
    assert found.low is not None
    assert found.high is not None
    assert ratios.min() * (1 - 1e-9) <= found.low <= found.high <= ratios.max() * (1 + 1e-9)
    equal = bootstrap.ratio(bits - bits, num_bytes)
    assert (equal.value, equal.low, equal.high) == (0, 0, 0)


def test_the_interval_of_a_difference_is_far_narrower_than_those_of_the_figures() -> None:
    rng = np.random.default_rng(1)
    num_bytes = np.full(26, 2500.0)
    bits = num_bytes * (0.9 + 0.2 * rng.standard_normal(26))
    worse = bits + num_bytes * (0.01 + 0.002 * rng.standard_normal(26))
    bootstrap = BlockBootstrap.of(26)
    alone, paired = bootstrap.ratio(worse, num_bytes), bootstrap.ratio(worse - bits, num_bytes)
    assert width(paired) < width(alone) / 20
    assert (paired.low or 0) > 0


def test_too_few_blocks_give_no_interval() -> None:
    found = BlockBootstrap.of(2).ratio(np.ones(2), np.ones(2))
    assert (found.value, found.low, found.high) == (1, None, None)


def test_draws_are_the_same_every_time() -> None:
    assert (BlockBootstrap.of(9).draws == BlockBootstrap.of(9).draws).all()
    assert (BlockBootstrap.of(9).draws.sum(axis=1) == 9).all()


@given(st.integers(1, 500), st.data())
def test_a_share_lies_in_its_interval_between_zero_and_one(trials: int, data: st.DataObject) -> None:
    found = wilson_interval(data.draw(st.integers(0, trials)), trials)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    found = wilson_interval(9, 10)
    assert (found.low, found.high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_share_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson_interval(successes, trials)
