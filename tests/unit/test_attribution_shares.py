"""A step's work shared among its riders."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution.shares import RULE_OF_FAMILY, Rides, ShareRule
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.phase import Phase
from tests.factories import CaptureBuilder


def rides_of(builder: CaptureBuilder) -> Rides:
    capture = builder.build()
    return Rides.of(capture.steps, capture.step_requests, capture.requests)


def only(rule: ShareRule, time_ns: int, num_steps: int = 1) -> np.ndarray:
    table = np.zeros((num_steps, len(ShareRule)), np.int64)
    table[:, rule] = time_ns
    return table


def test_every_family_has_a_rule() -> None:
    assert set(RULE_OF_FAMILY) == set(OpFamily)
    assert RULE_OF_FAMILY[OpFamily.GEMM] is ShareRule.TOKENS
    assert RULE_OF_FAMILY[OpFamily.ATTENTION] is ShareRule.ATTENTION
    assert RULE_OF_FAMILY[OpFamily.SAMPLING] is ShareRule.SAMPLED


def test_gemms_go_by_scheduled_tokens() -> None:
    builder = CaptureBuilder().step(0, 0, 10)
    builder.ride(0, 0, Phase.PREFILL, num_scheduled=30).ride(0, 1).ride(0, 2)
    assert rides_of(builder).share_ns(only(ShareRule.TOKENS, 3_200)).tolist() == [3_000, 100, 100]


def test_attention_goes_by_its_own_work() -> None:
    builder = CaptureBuilder().step(0, 0, 10)
    builder.ride(0, 0, Phase.PREFILL, num_scheduled=4, context_len=10).ride(0, 1, context_len=49)
    assert rides_of(builder).share_ns(only(ShareRule.ATTENTION, 100)).tolist() == [50, 50]


def test_sampling_goes_by_sampled_sequences() -> None:
    builder = CaptureBuilder().step(0, 0, 10)
    builder.ride(0, 0, Phase.PREFILL, num_scheduled=512, num_sampled=0).ride(0, 1).ride(0, 2)
    assert rides_of(builder).share_ns(only(ShareRule.SAMPLED, 100)).tolist() == [0, 50, 50]


def test_sampling_in_a_step_that_samples_none_goes_by_tokens() -> None:
    builder = CaptureBuilder().step(0, 0, 10)
    builder.ride(0, 0, Phase.PREFILL, num_scheduled=30, num_sampled=0)
    builder.ride(0, 1, Phase.PREFILL, num_scheduled=10, num_sampled=0)
    assert rides_of(builder).share_ns(only(ShareRule.SAMPLED, 100)).tolist() == [75, 25]


def test_a_step_without_tokens_is_shared_evenly() -> None:
    builder = CaptureBuilder().step(0, 0, 10)
    builder.ride(0, 0, num_scheduled=0, num_sampled=0).ride(0, 1, num_scheduled=0, num_sampled=0)
    for rule in ShareRule:
        assert rides_of(builder).share_ns(only(rule, 9)).sum() == 9


def test_long_contexts_do_not_overflow() -> None:
    builder = CaptureBuilder().step(0, 0, 10)
    for request in range(8):
        builder.ride(0, request, Phase.PREFILL, num_scheduled=1_000_000, context_len=1_000_000)
    shares = rides_of(builder).share_ns(only(ShareRule.ATTENTION, 3_600_000_000_001))
    assert shares.sum() == 3_600_000_000_001
    assert shares.max() - shares.min() <= 1


def test_rides_of_unrecorded_steps_get_nothing() -> None:
    rides = rides_of(CaptureBuilder().step(3, 0, 10).ride(2, 0).ride(3, 1))
    assert rides.requests[rides.request_row].tolist() == [1]


def test_steps_without_riders_are_left_out() -> None:
    rides = rides_of(CaptureBuilder().step(0, 0, 10).step(1, 20, 30).ride(1, 0))
    assert rides.has_riders.tolist() == [False, True]
    assert rides.share_ns(only(ShareRule.TOKENS, 7, 2)).tolist() == [7]


def test_prefills_and_decodes_are_told_apart() -> None:
    builder = CaptureBuilder().step(0, 0, 10)
    builder.ride(0, 0, Phase.PREFILL, num_scheduled=3).ride(0, 1)
    assert rides_of(builder).prefill_fraction()[0, ShareRule.TOKENS] == 0.75


a_ride = st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 600), st.integers(0, 3_000), st.integers(0, 2))


@settings(max_examples=150, deadline=None)
@given(rides=st.lists(a_ride, max_size=20), times=st.lists(st.integers(0, 10**12), min_size=15, max_size=15))
def test_shares_add_up_whatever_the_weights(rides: list[tuple[int, ...]], times: list[int]) -> None:
    builder = CaptureBuilder()
    for step in range(5):
        builder.step(step, step * 10, step * 10 + 5)
    for step, request, scheduled, context, sampled in rides:
        builder.ride(
            step, request, Phase(request % 2), num_scheduled=scheduled, context_len=context, num_sampled=sampled
        )
    shares, step_ns = rides_of(builder), np.array(times, np.int64).reshape(5, 3)
    shared = shares.share_ns(step_ns)
    assert (shared >= 0).all()
    per_step = np.bincount(shares.step_row, shared, 5).astype(np.int64)
    assert per_step.tolist() == np.where(shares.has_riders, step_ns.sum(axis=1), 0).tolist()
    joules = shares.share_j(step_ns / 1e9)
    np.testing.assert_allclose(joules.sum(), step_ns[shares.has_riders].sum() / 1e9, rtol=1e-12)
