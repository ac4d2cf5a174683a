"""Workloads: seeded arrivals and prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.engines.protocol import Vocabulary
from qmeter_native.errors import UsageError
from qmeter_native.workload.prompts import prompts_of
from qmeter_native.workload.workload import Workload


def test_a_burst_is_due_at_once() -> None:
    assert Workload(num_requests=4).arrival_offsets_ns().tolist() == [0, 0, 0, 0]


@given(seed=st.integers(0, 2**31), rate_hz=st.floats(0.1, 1000.0))
def test_poisson_arrivals_begin_at_zero_and_never_go_back(seed: int, rate_hz: float) -> None:
    offsets = Workload(num_requests=20, arrival="poisson", rate_hz=rate_hz, seed=seed).arrival_offsets_ns()
    assert offsets[0] == 0
    assert (offsets[1:] >= offsets[:-1]).all()


def test_poisson_gaps_have_the_mean_that_was_asked_for() -> None:
    offsets = Workload(num_requests=10_001, arrival="poisson", rate_hz=50.0).arrival_offsets_ns()
    assert offsets[-1] / 10_000 == pytest.approx(1e9 / 50.0, rel=0.05)


def test_equal_seeds_give_equal_prompts_and_other_seeds_give_others() -> None:
    vocabulary = Vocabulary(1000)
    first, second = (prompts_of(Workload(seed=3), vocabulary, 4) for _ in range(2))
    assert first == second
    assert first != prompts_of(Workload(seed=4), vocabulary, 4)


def test_random_prompts_avoid_special_ids() -> None:
    vocabulary = Vocabulary(8, frozenset({0, 3, 7}))
    ids = {token for prompt in prompts_of(Workload(input_len=200), vocabulary, 5) for token in prompt}
    assert ids == {1, 2, 4, 5, 6}


def test_a_byte_model_gets_source_code() -> None:
    prompts = prompts_of(Workload(input_len=4000), Vocabulary(256, frozenset({0}), is_bytes=True), 3)
    assert [len(prompt) for prompt in prompts] == [4000] * 3
    text = b"".join(bytes(prompt) for prompt in prompts)
    assert b"self" in text
    assert b"\0" not in text


@pytest.mark.parametrize(
    "fields",
    [
        {"num_requests": 0},
        {"input_len": 0},
        {"output_len": -1},
        {"num_warmup": -1},
        {"arrival": "uniform"},
        {"arrival": "poisson"},
        {"arrival": "poisson", "rate_hz": 0.0},
        {"arrival": "burst", "rate_hz": 3.0},
    ],
)
def test_a_workload_that_makes_no_sense_is_a_usage_error(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Workload(**fields)  # type: ignore[arg-type]
