"""vLLM's scheduler output as records: what each request did in a step."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from qmeter_native.engines.vllm.batch_rows import BatchRows
from qmeter_native.model.phase import Phase
from tests import vllm_stubs as vllm

COLUMNS = ["request", "phase", "num_scheduled", "num_cached", "num_draft", "num_sampled", "context_len"]


def rows_of(*outputs: vllm.SchedulerOutput) -> list[list[tuple[Any, ...]]]:
    """For each batch its rows, less their step, requests numbered 0, 1, …"""
    numbers = count()
    reader = BatchRows(lambda name: next(numbers))
    batches = []
    for step, output in enumerate(outputs):
        reader.forget(output.finished_req_ids)
        rows = reader.read(step, output)
        assert (rows["step"] == step).all()
        batches.append([tuple(np.array(row[COLUMNS].tolist()).tolist()) for row in rows])
    return batches


def test_a_prompt_is_prefilled_whole_and_then_decoded() -> None:
    assert rows_of(vllm.new("a", prompt=5, scheduled=5), vllm.cached(a=(5, 1)), vllm.cached(a=(6, 1))) == [
        [(0, Phase.PREFILL, 5, 0, 0, 1, 0)],
        [(0, Phase.DECODE, 1, 0, 0, 1, 5)],
        [(0, Phase.DECODE, 1, 0, 0, 1, 6)],
    ]


def test_only_the_last_chunk_of_a_prompt_is_sampled() -> None:
    assert rows_of(vllm.new("a", prompt=5, scheduled=2), vllm.cached(a=(2, 2)), vllm.cached(a=(4, 1))) == [
        [(0, Phase.PREFILL, 2, 0, 0, 0, 0)],
        [(0, Phase.PREFILL, 2, 0, 0, 0, 2)],
        [(0, Phase.PREFILL, 1, 0, 0, 1, 4)],
    ]


def test_what_the_prefix_cache_had_is_cached_in_the_first_step_only() -> None:
    assert rows_of(vllm.new("a", prompt=40, scheduled=8, computed=32), vllm.cached(a=(40, 1))) == [
        [(0, Phase.PREFILL, 8, 32, 0, 1, 32)],
        [(0, Phase.DECODE, 1, 0, 0, 1, 40)],
    ]


def test_new_and_running_requests_share_a_batch_in_vllms_order() -> None:
    mixed = vllm.batch(vllm.cached(a=(5, 1)), vllm.new("b", prompt=3, scheduled=3))
    assert rows_of(vllm.new("a", prompt=5, scheduled=5), mixed)[1] == [
        (1, Phase.PREFILL, 3, 0, 0, 1, 0),
        (0, Phase.DECODE, 1, 0, 0, 1, 5),
    ]


def test_a_preempted_request_keeps_its_number_and_prefills_its_own_output_again() -> None:
    resumed = vllm.new("a", prompt=5, outputs=3, scheduled=4, computed=4)
    rest = vllm.new("a", prompt=5, outputs=3, scheduled=2, computed=4)
    first = vllm.new("a", prompt=5, scheduled=5)
    assert rows_of(first, resumed, vllm.cached(a=(8, 1)))[1:] == [
        [(0, Phase.PREFILL, 4, 4, 0, 1, 4)],
        [(0, Phase.DECODE, 1, 0, 0, 1, 8)],
    ]
    assert rows_of(first, rest)[1] == [(0, Phase.PREFILL, 2, 4, 0, 0, 4)]


def test_model_runner_v1_gets_a_resumed_request_among_the_running_ones() -> None:
    resumed = vllm.cached(a=(4, 4))
    resumed.scheduled_cached_reqs.resumed_req_ids.add("a")
    resumed.scheduled_cached_reqs.num_output_tokens = [3]
    assert rows_of(vllm.new("a", prompt=5, scheduled=5), vllm.cached(a=(5, 1)), resumed, vllm.cached(a=(8, 1)))[2:] == [
        [(0, Phase.PREFILL, 4, 4, 0, 1, 4)],
        [(0, Phase.DECODE, 1, 0, 0, 1, 8)],
    ]


def test_drafts_are_counted_among_the_scheduled_tokens() -> None:
    step = vllm.batch(vllm.cached(a=(5, 4)), vllm.cached(b=(2, 1)), scheduled_spec_decode_tokens={"a": [-1, -1, -1]})
    first = vllm.batch(vllm.new("a", prompt=5, scheduled=5), vllm.new("b", prompt=2, scheduled=2))
    assert rows_of(first, step)[1] == [
        (0, Phase.DECODE, 4, 0, 3, 1, 5),
        (1, Phase.DECODE, 1, 0, 0, 1, 2),
    ]


def test_an_id_that_is_used_again_after_its_request_finished_is_another_request() -> None:
    again = vllm.new("a", prompt=2, scheduled=2)
    again.finished_req_ids = {"a", "never scheduled"}
    assert rows_of(vllm.new("a", prompt=5, scheduled=5), again) == [
        [(0, Phase.PREFILL, 5, 0, 0, 1, 0)],
        [(1, Phase.PREFILL, 2, 0, 0, 1, 0)],
    ]


def test_an_aborted_request_leaves_the_others_as_they_are() -> None:
    both = vllm.batch(vllm.new("a", prompt=5, scheduled=5), vllm.new("b", prompt=2, scheduled=2))
    without = vllm.cached(b=(2, 1))
    without.finished_req_ids = {"a"}
    assert rows_of(both, vllm.cached(a=(5, 1), b=(2, 1)), without)[2] == [(1, Phase.DECODE, 1, 0, 0, 1, 2)]


def test_a_prompt_of_embeddings_is_as_long_as_they_are_many() -> None:
    output = vllm.new("a", prompt=3, scheduled=3)
    data = output.scheduled_new_reqs[0]
    data.prompt_token_ids, data.prefill_token_ids, data.prompt_embeds = None, None, np.zeros((3, 8))
    assert rows_of(output) == [[(0, Phase.PREFILL, 3, 0, 0, 1, 0)]]
