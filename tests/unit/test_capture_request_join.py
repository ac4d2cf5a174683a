"""Requests of clients, schedulers and workers become one, by name, and never two by mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.capture.request_join import JoinedRequests, SpoolRequests, client_of, join_requests
from qmeter_native.model.tables import EngineRequestTable, RequestIdTable, RequestTable

START, END = 1_000, 2_000


def rows(table: Any, *entries: dict[str, Any]) -> Any:
    names = [spec.name for spec in table.columns()]
    texts = {spec.name for spec in table.columns() if spec.metadata["dtype"].hasobject}
    return table.from_columns(
        **{name: [entry.get(name, "" if name in texts else 0) for entry in entries] for name in names}
    )


def spool(
    clients: dict[int, str] | None = None,
    names: dict[int, str] | None = None,
    engine: dict[int, dict[str, Any]] | None = None,
    ridden: tuple[int, ...] = (),
    answered: tuple[int, ...] = (),
) -> SpoolRequests:
    return SpoolRequests(
        clients=rows(RequestTable, *({"request": n, "name": name} for n, name in (clients or {}).items())),
        names=rows(RequestIdTable, *({"request": n, "name": name} for n, name in (names or {}).items())),
        engine=rows(EngineRequestTable, *({"request": n, **values} for n, values in (engine or {}).items())),
        ridden=np.array(sorted(set(ridden)), "i4"),
        answered=np.array(sorted(set(answered)), "i4"),
    )


def join(*spools: SpoolRequests) -> JoinedRequests:
    return join_requests(spools, START, END)


def named(joined: JoinedRequests, spool_at: int, number: int) -> str:
    """Name of the request that a number of an engine became."""
    return str(joined.requests.name[joined.engine_numbers[spool_at](np.array([number]))[0]])


@pytest.mark.parametrize(
    ("engine_id", "client"),
    [
        ("r1", "r1"),
        ("cmpl-r1-0-1a2b3c4d", "r1"),
        ("cmpl-r10-0-1a2b3c4d", "r10"),
        ("chatcmpl-r1", "r1"),
        ("cmpl-r1-2-0", "r1-2"),
        ("cmpl-r1-3-0", "r1"),
        ("cmpl-7-10-99", "7"),
        ("cmpl-r100-0", None),
        ("cmpl-xr1-0", None),
        ("cmpl-r1x-0", None),
        ("", None),
    ],
)
def test_an_engines_id_belongs_to_the_client_whose_name_it_holds(engine_id: str, client: str | None) -> None:
    clients = {name: number for number, name in enumerate(("r1", "r10", "r1-2", "r", "7", "10"))}
    found = client_of(engine_id, clients)
    assert found == (None if client is None else clients[client])


def test_clients_keep_their_order_and_workers_find_them() -> None:
    joined = join(
        spool(clients={0: "a", 1: "b"}, answered=(0, 1)),
        spool(names={7: "cmpl-b-0-ff", 3: "cmpl-a-0-ee"}, ridden=(3, 7)),
        spool(names={0: "cmpl-a-0-ee", 1: "cmpl-b-0-ff"}, ridden=(0, 1)),
    )
    assert joined.requests.name.tolist() == ["a", "b"]
    assert [named(joined, at, number) for at, number in ((1, 7), (1, 3), (2, 0), (2, 1))] == ["b", "a", "a", "b"]
    assert (joined.num_sent, joined.num_unsent) == (2, 0)


def test_an_engine_in_the_clients_process_uses_its_numbers() -> None:
    joined = join(spool(clients={4: "a", 2: "b"}, ridden=(2, 4), answered=(4,)))
    assert joined.requests.request.tolist() == [0, 1]
    assert [named(joined, 0, number) for number in (4, 2)] == ["a", "b"]
    assert joined.client_numbers[0](np.array([4, 2])).tolist() == [0, 1]


def test_without_clients_the_engines_requests_are_the_requests_in_order_of_arrival() -> None:
    late = {"arrival_ns": 90, "first_token_ns": 95, "finish_ns": 99, "num_output_tokens": 3, "is_finished": True}
    early = {"arrival_ns": 50, "finish_ns": 60, "reason": "abort", "num_prompt_tokens": 8}
    joined = join(spool(names={0: "late", 1: "early", 2: "unknown"}, engine={0: late, 1: early}, ridden=(0, 1, 2)))
    requests = joined.requests
    assert requests.name.tolist() == ["early", "late", "unknown"]
    assert requests.send_ns.tolist() == [50, 90, 0]
    assert requests.first_token_ns.tolist() == [0, 95, 0]
    assert requests.last_token_ns.tolist() == [60, 99, 0]
    assert requests.num_prompt_tokens.tolist() == [8, 0, 0]
    assert requests.is_finished.tolist() == [False, True, False]
    assert requests.error.tolist() == ["abort", "", ""]
    assert joined.num_sent == 0


def test_what_no_client_sent_is_kept_if_it_rode_or_arrived_while_clients_were_measured() -> None:
    joined = join(
        spool(clients={0: "a"}),
        spool(
            names={0: "a", 1: "probe-before", 2: "probe-during", 3: "warm-up"},
            engine={0: {}, 1: {"arrival_ns": START - 1}, 2: {"arrival_ns": START}, 3: {"arrival_ns": 5}},
            ridden=(0, 3),
        ),
    )
    assert joined.requests.name.tolist() == ["a", "warm-up", "probe-during"]
    assert joined.engine_numbers[1](np.array([0, 1, 2, 3])).tolist() == [0, -1, 2, 1]
    assert joined.num_unsent == 1


def test_requests_whose_names_were_lost_are_not_taken_for_each_other() -> None:
    joined = join(spool(names={1: "x"}, ridden=(1, 5)), spool(ridden=(5,), answered=(5,)))
    assert joined.requests.name.tolist() == ["x", "<lost request 5>", "<lost request 5>"]
    assert joined.engine_numbers[1](np.array([5])).tolist() == joined.client_numbers[1](np.array([5])).tolist()


def test_without_requests_there_are_none() -> None:
    joined = join(spool(), spool())
    assert len(joined.requests) == 0
    assert len(joined.engine_numbers[1](np.empty(0, "i4"))) == 0


NAMES = st.text("r1-0", min_size=1, max_size=5)
"""Names that are prefixes and parts of one another, delimiters included."""


@given(st.lists(NAMES, unique=True, max_size=8), NAMES, st.sampled_from(["", "cmpl-", "chatcmpl-"]))
def test_an_id_made_of_a_sent_name_never_belongs_to_a_name_that_it_does_not_hold(
    names: list[str], sent: str, prefix: str
) -> None:
    known = sorted({*names, sent})
    found = client_of(f"{prefix}{sent}-0-1a2b3c4d", {name: number for number, name in enumerate(known)})
    assert found is not None
    assert known[found] in f"{prefix}{sent}-0-1a2b3c4d"


ALNUM = st.text("abr10", min_size=1, max_size=4)


@given(st.lists(ALNUM, unique=True, min_size=1, max_size=8))
def test_names_of_letters_and_digits_are_never_taken_for_each_other(names: list[str]) -> None:
    clients = {name: number for number, name in enumerate(names)}
    for name, number in clients.items():
        assert client_of(f"cmpl-{name}-x-9f8e7d6c", clients) == number


NUMBERS = st.integers(-3, 9)
SPOOLS = st.lists(
    st.builds(
        spool,
        clients=st.dictionaries(NUMBERS, NAMES, max_size=4),
        names=st.dictionaries(NUMBERS, NAMES.map("cmpl-{}-0".format), max_size=6),
        engine=st.dictionaries(NUMBERS, st.fixed_dictionaries({"arrival_ns": st.integers(0, 3_000)}), max_size=6),
        ridden=st.lists(NUMBERS, max_size=6).map(tuple),
        answered=st.lists(NUMBERS, max_size=4).map(tuple),
    ),
    max_size=4,
)


@given(SPOOLS)
def test_every_ride_and_every_answer_keeps_a_request_and_numbers_are_dense(spools: list[SpoolRequests]) -> None:
    joined = join(*spools)
    total = len(joined.requests)
    assert joined.requests.request.tolist() == list(range(total))
    assert joined.num_sent == sum(len(each.clients) for each in spools)
    for each, engine, client in zip(spools, joined.engine_numbers, joined.client_numbers, strict=True):
        kept = np.concatenate([engine(each.ridden), client(each.answered), client(each.clients.request)])
        assert np.all((kept >= 0) & (kept < total))
        of_engine = engine(each.engine.request)
        assert np.all((of_engine >= -1) & (of_engine < total))
        if joined.num_sent == 0:
            assert np.all(of_engine >= 0)


@given(SPOOLS)
def test_two_ids_that_differ_are_one_request_only_if_a_client_sent_both(spools: list[SpoolRequests]) -> None:
    joined = join(*spools)
    ids: dict[int, set[str]] = {}
    for each, numbers in zip(spools, joined.engine_numbers, strict=True):
        for number, name in zip(numbers(each.names.request).tolist(), each.names.name.tolist(), strict=True):
            ids.setdefault(number, set()).add(name)
    for number, names in ids.items():
        if number >= joined.num_sent:
            assert names == {joined.requests.name[number]}
        elif number >= 0:
            assert all(joined.requests.name[number] in name for name in names)
