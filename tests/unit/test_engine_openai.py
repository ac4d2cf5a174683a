"""The openai engine against a real server on a socket: what arrives, what is counted by, what goes wrong."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from qmeter_native.engines.openai_engine import OpenAIEngine
from qmeter_native.engines.protocol import TokenChunk
from qmeter_native.errors import EngineError, UsageError
from qmeter_native.workload.load_generator import LoadResult, Progress, run_workload, warm_up
from qmeter_native.workload.workload import Workload
from tests.openai_server import STANDARD_FIELDS, OpenAIServer, ServerOptions

WORKLOAD = Workload(num_requests=4, input_len=8, output_len=6, num_warmup=0)
PROBE = 1
"""Completions that the engine asks for when it is made."""


@contextmanager
def connected(
    options: ServerOptions | None = None, timeout_s: float = 10.0
) -> Iterator[tuple[OpenAIServer, OpenAIEngine]]:
    with (
        OpenAIServer(options or ServerOptions()) as server,
        OpenAIEngine(server.base_url, timeout_s=timeout_s) as engine,
    ):
        yield server, engine


def run(options: ServerOptions, workload: Workload = WORKLOAD, timeout_s: float = 10.0) -> LoadResult:
    with connected(options, timeout_s) as (_, engine):
        return run_workload(engine, workload)


def chunks_of(engine: OpenAIEngine, request: int) -> list[TokenChunk]:
    """All that comes of a request, until its last chunk."""
    chunks: list[TokenChunk] = []
    while not (chunks and chunks[-1].is_finished):
        chunk = engine.receive(0.05)
        if chunk is not None and chunk.request == request:
            chunks.append(chunk)
    return chunks


def receive_for_ever(engine: OpenAIEngine) -> None:
    while True:
        engine.receive(0.01)


def test_every_token_of_every_request_arrives_once() -> None:
    result = run(ServerOptions(tokens_per_chunk=2), Workload(num_requests=32, input_len=8, output_len=21))
    assert result.failure is None
    assert result.requests.is_finished.all()
    assert result.requests.num_output_tokens.tolist() == [21] * 32
    per_request = np.bincount(result.output_tokens.request, result.output_tokens.num_tokens)
    assert per_request.tolist() == [21.0] * 32
    assert result.description["num_count_mismatches"] == 0


def test_a_request_is_made_of_token_ids_and_asks_for_exactly_so_many() -> None:
    with connected() as (server, engine):
        engine.submit(0, [11, 12, 13], 5)
        chunks_of(engine, 0)
        body = server.received[-1].body
    assert body["prompt"] == [11, 12, 13]
    assert (body["max_tokens"], body["ignore_eos"], body["temperature"], body["stream"]) == (5, True, 0, True)
    assert body["return_token_ids"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_the_name_of_a_request_is_its_id_on_the_wire_and_unique_to_the_run() -> None:
    names = set()
    for _ in range(2):
        with connected() as (server, engine):
            for request in (0, 1, -1):
                name = engine.submit(request, [1], 1)
                chunks_of(engine, request)
                assert server.received[-1].headers["x-request-id"] == name
                assert re.fullmatch(r"qm-[0-9a-f]{8}-(warmup-)?\d+", name)
                names.add(name)
    assert len(names) == 6


def test_chunks_are_stamped_when_they_arrive() -> None:
    with connected(ServerOptions(token_delay_s=0.02)) as (_, engine):
        before_ns = time.time_ns()
        engine.submit(0, [1], 4)
        stamps = [chunk.time_ns for chunk in chunks_of(engine, 0)]
    assert before_ns <= stamps[0]
    assert stamps == sorted(stamps)
    assert stamps[3] - stamps[0] >= 3 * 20e6


def test_token_ids_are_passed_on_with_several_in_a_chunk() -> None:
    with connected(ServerOptions(tokens_per_chunk=4, token_delay_s=0.01)) as (_, engine):
        engine.submit(0, [1], 10)
        chunks = chunks_of(engine, 0)
    assert engine.info.effective["token_counts"] == "ids"
    assert [token for chunk in chunks for token in chunk.tokens] == list(range(100, 110))
    assert [chunk.num_tokens for chunk in chunks] == [4, 4, 2, 0]


def test_without_token_ids_the_running_counts_are_used() -> None:
    with connected(ServerOptions(tells_token_ids=False, tokens_per_chunk=4, token_delay_s=0.01)) as (_, engine):
        engine.submit(0, [1], 10)
        chunks = chunks_of(engine, 0)
    assert engine.info.effective["token_counts"] == "running"
    assert [chunk.num_tokens for chunk in chunks] == [4, 4, 2, 0]


def test_with_a_total_alone_what_nobody_can_place_is_counted_with_the_last_chunk() -> None:
    options = ServerOptions(tells_token_ids=False, tells_counts=False, tokens_per_chunk=4, token_delay_s=0.02)
    with connected(options) as (_, engine):
        assert engine.info.effective["token_counts"] == "total"
        result = run_workload(engine, Workload(num_requests=1, input_len=4, output_len=10))
    assert result.requests.num_output_tokens.tolist() == [10]
    assert result.output_tokens.num_tokens.tolist() == [1, 1, 8]


def test_a_server_that_refuses_unknown_fields_is_asked_without_them() -> None:
    with connected(ServerOptions(known_fields=STANDARD_FIELDS)) as (server, engine):
        result = run_workload(engine, WORKLOAD)
        assert server.received[-1].body.keys() <= STANDARD_FIELDS
    assert engine.info.effective["ignore_eos"] is False
    assert result.requests.num_output_tokens.tolist() == [6] * 4


def test_a_field_that_the_server_does_not_know_is_the_only_one_left_out() -> None:
    known = STANDARD_FIELDS | {"ignore_eos", "return_token_ids"}
    with connected(ServerOptions(known_fields=known)) as (server, engine):
        assert "cache_salt" not in server.received[-1].body
    assert engine.info.effective["ignore_eos"] is True
    assert engine.info.effective["token_counts"] == "ids"


def test_a_server_that_takes_no_token_ids_is_an_error_with_its_own_words() -> None:
    with (
        pytest.raises(EngineError, match="HTTP 400: prompt must be a string"),
        connected(ServerOptions(takes_token_ids=False)),
    ):
        pass


def test_a_server_that_counts_nothing_is_an_error() -> None:
    options = ServerOptions(tells_token_ids=False, tells_counts=False, tells_usage=False)
    with pytest.raises(EngineError, match="does not say how many tokens"), connected(options):
        pass


def test_the_server_describes_itself() -> None:
    with connected(ServerOptions(model="llama", max_model_len=99, version="1.2.3")) as (server, engine):
        info = engine.info
        assert info.requested["base_url"] == server.base_url
    assert (info.name, info.version, info.model) == ("openai", "1.2.3", "llama")
    assert info.effective["max_model_len"] == 99
    assert info.effective["is_local"] is True


def test_a_server_without_a_version_is_of_an_unknown_one() -> None:
    with connected(ServerOptions(version=None)) as (_, engine):
        assert engine.info.version == "unknown"


def test_prompts_for_an_unknown_vocabulary_keep_to_ids_that_are_ordinary_everywhere() -> None:
    with (
        OpenAIServer() as server,
        OpenAIEngine(server.base_url) as engine,
        OpenAIEngine(server.base_url, vocab_size=20_000) as small,
    ):
        ordinary = [set(range(each.vocabulary.size)) - each.vocabulary.special_ids for each in (engine, small)]
    assert ordinary == [set(range(1000, 30_000)), set(range(1000, 20_000))]


def test_the_vocabulary_of_a_model_on_this_machine_is_read_from_its_files(tmp_path: Path) -> None:
    config = {"vocab_size": 50_000, "eos_token_id": [2, 3], "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"49000": {}}}))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 7}]}))
    with connected(ServerOptions(root=str(tmp_path))) as (_, engine):
        assert engine.vocabulary.size == 50_000
        assert engine.vocabulary.special_ids == {2, 3, 7, 49_000}
        assert engine.info.effective["hf_config"] == config


def test_an_api_key_is_sent_and_never_described() -> None:
    with OpenAIServer(ServerOptions(api_key="secret")) as server:
        with OpenAIEngine(server.base_url, api_key="secret") as engine:
            assert run_workload(engine, WORKLOAD).failure is None
            assert "secret" not in str(engine.info)
        with pytest.raises(EngineError, match="HTTP 401: Unauthorized"):
            OpenAIEngine(server.base_url)


def test_a_base_url_may_end_in_v1() -> None:
    with OpenAIServer() as server, OpenAIEngine(server.base_url + "/v1/") as engine:
        assert engine.info.requested["base_url"] == server.base_url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://me:secret@localhost",
        "http://[bad",
        "http://h:abc",
        "http://h:99999",
        "http://h:0",
        "http://h/v1?x=1",
    ],
)
def test_what_is_no_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError):
        OpenAIEngine(url)


def test_nobody_listening_is_an_error() -> None:
    with OpenAIServer() as server:
        url = server.base_url
    with pytest.raises(EngineError, match=r"no server answers at .*: Connection refused"):
        OpenAIEngine(url)


def test_somebody_who_speaks_no_http_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(EngineError, match=r"no server answers at .*: no proper HTTP: SSH-2.0"):
            OpenAIEngine(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


def test_a_model_that_is_not_served_is_an_error_that_names_those_that_are() -> None:
    with OpenAIServer() as server, pytest.raises(EngineError, match=r"(?s)no model called 'other'.*test-model"):
        OpenAIEngine(server.base_url, model="other")


def test_requests_longer_than_the_context_are_refused_before_they_are_sent() -> None:
    with connected(ServerOptions(max_model_len=10)) as (server, engine):
        with pytest.raises(EngineError, match="has 11 tokens, and the server takes 10"):
            engine.submit(0, [1] * 6, 5)
        assert len(server.received) == PROBE


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("status", "HTTP 500: the engine is broken"),
        ("refuse", "HTTP 400: no such luck"),
        ("error_event", "the server failed: out of memory"),
        ("cut", "the connection was cut after 2 tokens"),
        ("cut_cleanly", "the stream ended after 2 tokens without being finished"),
        ("malformed", 'the stream is malformed: {"choices": [{"text"'),
        ("abort", "the server gave the request up: finish_reason abort"),
        ("stall", "the server sent nothing for 0.3 s"),
    ],
)
def test_a_request_that_fails_says_why_and_the_others_are_kept(fault: str, error: str) -> None:
    result = run(ServerOptions(fault=fault, fault_from=PROBE + 3), timeout_s=0.3)
    assert result.requests.is_finished.sum() == 3
    assert result.failure is not None
    assert result.failure.startswith(error)
    failed = int(np.flatnonzero(~result.requests.is_finished)[0])
    assert result.requests.error[failed] == result.failure
    assert result.requests.num_output_tokens[failed] == (0 if fault in ("status", "refuse") else 2)
    assert np.delete(result.requests.num_output_tokens, failed).tolist() == [6] * 3


def test_a_server_that_ends_in_mid_run_leaves_what_was_answered_until_then() -> None:
    workload = Workload(num_requests=20, arrival="poisson", rate_hz=100.0, input_len=4, output_len=3, num_warmup=0)
    result = run(ServerOptions(fault="die", fault_from=PROBE + 8), workload)
    assert len(result.requests) == 20
    assert 0 < result.requests.is_finished.sum() <= 12
    assert all(result.requests.error[~result.requests.is_finished])
    assert result.requests.num_output_tokens[result.requests.is_finished].tolist() == [3] * int(
        result.requests.is_finished.sum()
    )
    assert any("cannot connect" in error for error in result.requests.error)


def test_a_cancelled_request_is_aborted_on_the_server_and_silent_here() -> None:
    with connected(ServerOptions(token_delay_s=0.01)) as (server, engine):
        engine.submit(0, [1], 1000)
        while (chunk := engine.receive(5.0)) is None or not chunk.num_tokens:
            pass
        engine.cancel(0)
        engine.submit(1, [1], 3)
        seen: list[TokenChunk] = []
        while not (seen and seen[-1].is_finished):
            seen.extend(chunk for chunk in [engine.receive(0.05)] if chunk is not None)
        assert {chunk.request for chunk in seen} == {1}
        deadline = time.monotonic() + 5
        while not server.received[PROBE].is_aborted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.received[PROBE].is_aborted


def test_an_interrupted_run_keeps_what_has_come() -> None:
    stop = threading.Event()

    def interrupt(progress: Progress) -> None:
        if progress.num_output_tokens >= 4:
            stop.set()

    with connected(ServerOptions(token_delay_s=0.01)) as (_, engine):
        workload = Workload(num_requests=2, input_len=4, output_len=2000)
        result = run_workload(engine, workload, stop=stop, progress=interrupt)
    assert result.failure is None
    assert 4 <= result.output_tokens.num_tokens.sum() < 100
    assert result.requests.error.tolist() == ["interrupted"] * 2


def test_a_failing_warm_up_is_an_error() -> None:
    with (
        connected(ServerOptions(fault="status", fault_from=PROBE)) as (_, engine),
        pytest.raises(EngineError, match="warm-up request: HTTP 500"),
    ):
        warm_up(engine, Workload(num_requests=1, input_len=4, output_len=4))


def test_a_closed_engine_takes_and_gives_nothing() -> None:
    with connected() as (_, engine):
        engine.submit(0, [1], 1000)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.submit(1, [1], 1)
        with pytest.raises(EngineError, match="closed"):
            receive_for_ever(engine)


def test_the_lag_of_the_client_is_in_the_description_of_the_workload() -> None:
    description = run(ServerOptions(first_delay_s=0.05)).description
    for name in ("schedule_lag_max_s", "write_lag_mean_s", "write_lag_max_s", "read_lag_mean_s", "read_lag_max_s"):
        assert description[name] >= 0


def test_hundreds_of_requests_are_served_at_once() -> None:
    result = run(ServerOptions(first_delay_s=0.3), Workload(num_requests=300, input_len=4, output_len=2, num_warmup=0))
    assert result.failure is None
    assert result.requests.first_token_ns.min() > result.requests.send_ns.max()
    assert result.requests.num_output_tokens.tolist() == [2] * 300
