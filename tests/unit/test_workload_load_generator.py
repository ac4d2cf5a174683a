"""The load generator against a scripted engine: what clients see is what is recorded."""

from __future__ import annotations

from threading import Event

import numpy as np
import pytest

from qmeter_native.engines.protocol import Vocabulary
from qmeter_native.workload.load_generator import Progress, run_workload, warm_up
from qmeter_native.workload.workload import Workload
from tests.engines import ScriptedEngine


def test_every_token_that_arrives_is_in_the_table_of_its_request() -> None:
    result = run_workload(ScriptedEngine(), Workload(num_requests=5, input_len=3, output_len=4))
    assert result.failure is None
    assert result.requests.is_finished.all()
    assert result.requests.num_output_tokens.tolist() == [4] * 5
    assert result.requests.num_prompt_tokens.tolist() == [3] * 5
    assert np.bincount(result.output_tokens.request, result.output_tokens.num_tokens).tolist() == [4.0] * 5


def test_first_and_last_stamps_are_those_of_the_first_and_last_chunk() -> None:
    result = run_workload(ScriptedEngine(), Workload(num_requests=3, input_len=3, output_len=4))
    for request in range(3):
        times = result.output_tokens.time_ns[result.output_tokens.request == request]
        assert (np.diff(times) >= 0).all()
        assert result.requests.first_token_ns[request] == times[0]
        assert result.requests.last_token_ns[request] == times[-1]
        assert result.requests.send_ns[request] <= times[0]


def test_requests_are_stamped_when_they_were_due_and_never_sent_early() -> None:
    engine = ScriptedEngine()
    workload = Workload(num_requests=6, arrival="poisson", rate_hz=200.0, input_len=2, output_len=1)
    result = run_workload(engine, workload)
    offsets = result.requests.send_ns - result.requests.send_ns[0]
    assert offsets.tolist() == workload.arrival_offsets_ns().tolist()
    assert (np.array(engine.submitted_ns) >= result.requests.send_ns).all()
    lags_s = (np.array(engine.submitted_ns) - result.requests.send_ns) / 1e9
    assert 0 <= result.description["schedule_lag_max_s"] <= lags_s.max()


def test_a_stop_event_keeps_what_was_received_and_cancels_the_rest() -> None:
    engine, stop = ScriptedEngine(), Event()

    def stop_after_three(progress: Progress) -> None:
        if progress.num_output_tokens == 3:
            stop.set()

    result = run_workload(
        engine, Workload(num_requests=2, input_len=2, output_len=9), stop=stop, progress=stop_after_three
    )
    assert result.failure is None
    assert result.output_tokens.num_tokens.sum() == 3
    assert not result.requests.is_finished.any()
    assert result.requests.error.tolist() == ["interrupted"] * 2
    assert engine.cancelled == [0, 1]


def test_an_interrupted_request_without_a_token_has_no_stamps() -> None:
    stop = Event()
    workload = Workload(num_requests=3, input_len=2, output_len=2)
    result = run_workload(ScriptedEngine(), workload, stop=stop, progress=lambda _: stop.set())
    assert result.requests.first_token_ns[1:].tolist() == [0, 0]
    assert result.requests.last_token_ns[1:].tolist() == [0, 0]


def test_an_engine_that_breaks_leaves_a_result_that_says_so() -> None:
    result = run_workload(ScriptedEngine(breaks_after=5), Workload(num_requests=2, input_len=2, output_len=4))
    assert result.failure == "the engine has stopped: out of script"
    assert result.requests.num_output_tokens.tolist() == [3, 2]
    assert result.requests.error.tolist() == ["given up: the engine has stopped: out of script"] * 2


def test_progress_counts_up_to_the_whole_workload() -> None:
    seen: list[Progress] = []
    run_workload(ScriptedEngine(), Workload(num_requests=3, input_len=2, output_len=2), progress=seen.append)
    assert seen[-1] == Progress(num_requests=3, num_sent=3, num_finished=3, num_output_tokens=6)
    assert [one.num_output_tokens for one in seen] == sorted(one.num_output_tokens for one in seen)


def test_warm_up_uses_negative_numbers_and_prompts_that_do_not_come_again() -> None:
    engine = ScriptedEngine(Vocabulary(50_000))
    workload = Workload(num_requests=3, input_len=6, output_len=2, num_warmup=2)
    warm_up(engine, workload)
    assert sorted(engine.prompts) == [-2, -1]
    run_workload(engine, workload)
    warmed = {tuple(engine.prompts[request]) for request in (-1, -2)}
    assert warmed.isdisjoint(tuple(engine.prompts[request]) for request in range(3))


def test_a_warm_up_that_is_stopped_gives_up_the_rest() -> None:
    engine, stop = ScriptedEngine(), Event()
    stop.set()
    warm_up(engine, Workload(num_requests=1, input_len=2, output_len=9, num_warmup=2), stop)
    assert sorted(engine.cancelled) == [-2, -1]


@pytest.mark.parametrize(("total", "sizes"), [(5, [1, 4]), (2, [1, 1]), (1, [1, 0])])
def test_what_the_total_has_more_than_the_chunks_is_counted_with_the_last_one(total: int, sizes: list[int]) -> None:
    engine = ScriptedEngine(total_tokens=total)
    seen: list[Progress] = []
    result = run_workload(engine, Workload(num_requests=1, input_len=2, output_len=2), progress=seen.append)
    assert result.output_tokens.num_tokens.tolist() == sizes
    assert result.requests.num_output_tokens.tolist() == [total]
    assert seen[-1].num_output_tokens == total


def test_an_engine_is_told_how_many_requests_come_at_once() -> None:
    engine = ScriptedEngine()
    run_workload(engine, Workload(num_requests=3, input_len=2, output_len=1))
    assert engine.num_prepared == 3
    run_workload(engine, Workload(num_requests=3, arrival="poisson", rate_hz=500.0, input_len=2, output_len=1))
    assert engine.num_prepared == 1


def test_the_lags_of_generator_and_engine_are_in_the_description() -> None:
    description = run_workload(ScriptedEngine(), Workload(num_requests=3, input_len=2, output_len=1)).description
    assert 0 <= description["schedule_lag_mean_s"] <= description["schedule_lag_max_s"]
    assert description["schedule_lag_p99_s"] <= description["schedule_lag_max_s"]
    assert description["write_lag_max_s"] == 0.25


def test_the_description_is_the_workload_and_what_became_of_it() -> None:
    workload = Workload(num_requests=2, input_len=2, output_len=1, seed=5)
    description = run_workload(ScriptedEngine(), workload).description
    assert workload.describe().items() <= description.items()
    assert (description["num_sent"], description["num_finished"]) == (2, 2)


def test_ctrl_c_keeps_what_was_received() -> None:
    def interrupt(progress: Progress) -> None:
        if progress.num_output_tokens == 2:
            raise KeyboardInterrupt

    result = run_workload(ScriptedEngine(), Workload(num_requests=2, input_len=2, output_len=9), progress=interrupt)
    assert result.output_tokens.num_tokens.sum() == 2
    assert result.description["is_interrupted"]
