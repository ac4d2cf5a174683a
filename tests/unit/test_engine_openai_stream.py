"""Streams, however they are cut into reads, say the same."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.engines.http_response import HttpResponse, MalformedResponseError
from qmeter_native.engines.openai_stream import CompletionStream

DONE = b"data: [DONE]\n\n"


def event(**document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def chunk(text: str = "x", usage: int | None = None, **fields: Any) -> bytes:
    document: dict[str, Any] = {"choices": [{"index": 0, "text": text, **fields}]}
    if usage is not None:
        document["usage"] = {"completion_tokens": usage}
    return event(**document)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8), cuts=st.lists(st.integers(0, 5000), max_size=12))
def test_token_ids_are_the_same_wherever_the_stream_is_cut(sizes: list[int], cuts: list[int]) -> None:
    ids = iter(range(1000))
    chunks = [[next(ids) for _ in range(size)] for size in sizes]
    data = b": a comment\n\n" + b"".join(chunk(token_ids=tokens) for tokens in chunks) + DONE
    stream = CompletionStream()
    parts = [stream.feed(piece) for piece in pieces(data, cuts)]
    assert [token for part in parts for token in part.tokens] == list(range(sum(sizes)))
    assert sum(part.num_tokens for part in parts) == stream.num_tokens == sum(sizes)
    assert stream.is_done
    assert stream.error == ""


def test_running_counts_become_differences() -> None:
    stream = CompletionStream()
    assert [stream.feed(chunk(usage=count)).num_tokens for count in (2, 2, 5)] == [2, 0, 3]
    assert stream.is_counted


def test_text_alone_counts_one_a_piece_until_the_total_comes() -> None:
    stream = CompletionStream()
    assert stream.feed(chunk("one") + chunk("") + chunk("two")).num_tokens == 2
    stream.feed(event(choices=[], usage={"completion_tokens": 5}) + DONE)
    assert (stream.total_tokens, stream.is_counted) == (5, False)


def test_a_null_usage_in_a_chunk_says_nothing() -> None:
    stream = CompletionStream()
    assert stream.feed(event(choices=[{"text": "x", "token_ids": None}], usage=None)).num_tokens == 1


def test_lines_may_end_as_windows_ends_them_and_lack_the_space() -> None:
    stream = CompletionStream()
    stream.feed(chunk(token_ids=[1]).replace(b"\n", b"\r\n").replace(b"data: ", b"data:") + b"data: [DONE]\r\n\r\n")
    assert (stream.num_tokens, stream.is_done, stream.error) == (1, True, "")


def test_tokens_before_an_error_in_the_same_read_count_and_those_behind_it_do_not() -> None:
    stream = CompletionStream()
    part = stream.feed(chunk(token_ids=[1, 2]) + event(error={"message": "broken"}) + chunk(token_ids=[3]))
    assert part.tokens == (1, 2)
    assert stream.error == "the server failed: broken"


@pytest.mark.parametrize("data", ["[1]", "17", "{", '{"choices": 3}', '{"choices": [{"token_ids": 3}]}', '"text"'])
def test_events_that_make_no_sense_are_an_error(data: str) -> None:
    stream = CompletionStream()
    stream.feed(f"data: {data}\n\n".encode())
    assert stream.error.startswith("the stream is malformed")


def test_a_stream_without_the_word_done_is_finished_by_its_finish_reason() -> None:
    stream = CompletionStream()
    stream.feed(chunk(token_ids=[1], finish_reason="length"))
    stream.end()
    assert stream.error == ""


BODY = bytes(range(256)) * 3
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
    b"%X;name=value\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:700], BODY[700:])
)
SIZED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
OPEN = b"HTTP/1.0 200 OK\r\n\r\n" + BODY


@given(data=st.sampled_from([CHUNKED + b"0\r\n\r\n", SIZED, OPEN]), cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_a_body_is_the_same_in_every_framing_and_wherever_it_is_cut(data: bytes, cuts: list[int]) -> None:
    response = HttpResponse()
    body = b"".join(response.feed(piece) for piece in pieces(data, cuts))
    response.end()
    assert body == BODY
    assert (response.status, response.is_complete) == (200, True)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", SIZED[:-1], CHUNKED])
def test_a_response_that_was_cut_is_not_complete(data: bytes) -> None:
    response = HttpResponse()
    response.feed(data)
    response.end()
    assert not response.is_complete


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedResponseError):
        HttpResponse().feed(data)
