"""One number for each request: what clients sent, what engines scheduled and what rode in steps are joined by name.

A client sends the name of its request along (``X-Request-Id``), and an engine makes an id of its own out of it, such
as ``cmpl-<name>-0-1a2b3c4d``. Each process numbers requests for itself; its spool says which number has which id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.tables import EngineRequestTable, RequestIdTable, RequestTable

__all__ = ["JoinedRequests", "RequestNumbers", "SpoolRequests", "client_of", "join_requests"]

_Array = NDArray[Any]
_Key: TypeAlias = int | str | tuple[int, int]
"""A client's number; an engine's id that no client sent; or spool and number of a request whose name is lost."""


@dataclass(frozen=True, slots=True)
class SpoolRequests:
    """What one spool knows about requests; all numbers are its own.

    Attributes:
        clients: Requests that a client in its process sent.
        names: Ids of the requests that an engine in its process knows.
        engine: Requests that a scheduler in its process had.
        ridden: Distinct numbers that rode in steps or were preempted. Where the spool has no ``names``, the engine
            runs in the client's process and uses its numbers.
        answered: Distinct numbers (of ``clients``) that output was received for.
    """

    clients: RequestTable
    names: RequestIdTable
    engine: EngineRequestTable
    ridden: _Array
    answered: _Array


@dataclass(frozen=True, slots=True)
class RequestNumbers:
    """``joined`` (int32) has the capture's number by the spool's less ``lowest``; -1 where a request was left out."""

    lowest: int
    joined: _Array

    @classmethod
    def of(cls, numbers: Mapping[int, int]) -> RequestNumbers:
        """From the capture's number by the spool's."""
        lowest = min(numbers, default=0)
        joined = np.full(max(numbers, default=-1) - lowest + 1, -1, np.int32)
        joined[np.fromiter(numbers, np.int64) - lowest] = list(numbers.values())
        return cls(lowest, joined)

    def __call__(self, numbers: _Array) -> _Array:
        """The capture's numbers (int32) for an array of the spool's, all of them known."""
        joined: _Array = self.joined[numbers.astype(np.int64) - self.lowest]
        return joined


@dataclass(frozen=True, slots=True)
class JoinedRequests:
    """All requests of a capture.

    Attributes:
        requests: Numbered 0, 1, 2, …: first the clients', in their order, then all others by arrival.
        client_numbers: For each spool, what the numbers of its clients became.
        engine_numbers: For each spool, what the numbers of its engine became.
        num_sent: Requests that clients sent.
        num_unsent: Requests that engines had in the measured window and no recorded client sent. Warm-up requests and
            probes before it, whose steps keep them a row, are none.
    """

    requests: RequestTable
    client_numbers: tuple[RequestNumbers, ...]
    engine_numbers: tuple[RequestNumbers, ...]
    num_sent: int
    num_unsent: int


def join_requests(spools: Sequence[SpoolRequests], measure_start_ns: int, measure_end_ns: int) -> JoinedRequests:
    """Give every request one number.

    What rode in a step or was answered keeps a request, whatever else is lost. A request that only a scheduler knows
    is left out if clients were recorded, none of them sent it, and it arrived outside the measured window.
    """
    clients, client_keys = _number_clients(spools)
    by_name = {name: number for number, name in reversed(list(enumerate(clients.name.tolist()))) if name}
    engine_keys = [_engine_keys(spool, at, by_name, client_keys[at]) for at, spool in enumerate(spools)]
    for at, spool in enumerate(spools):
        for number in spool.answered.tolist():
            client_keys[at].setdefault(number, (at, number))
    unsent = _unsent(spools, client_keys, engine_keys)
    is_measured = range(measure_start_ns, measure_end_ns)
    kept = [
        (key, request)
        for key, request in unsent.items()
        if request.is_needed or not len(clients) or request.arrival_ns in is_measured
    ]
    kept.sort(key=lambda pair: (pair[1].arrival_ns == 0, pair[1].arrival_ns))
    numbers: dict[_Key, int] = {key: number for number, (key, _) in enumerate(kept, len(clients))}
    numbers.update((number, number) for number in range(len(clients)))
    return JoinedRequests(
        requests=RequestTable.concat([clients, _table([request for _, request in kept], len(clients))]),
        client_numbers=tuple(_numbers(keys, numbers) for keys in client_keys),
        engine_numbers=tuple(_numbers(keys, numbers) for keys in engine_keys),
        num_sent=len(clients),
        num_unsent=sum(request.arrival_ns in is_measured for _, request in kept),
    )


def client_of(engine_id: str, clients: Mapping[str, int]) -> int | None:
    """The client's request that an engine's id was made of, or None.

    It is the one whose name is in the id with no letter or digit beside it: of several the first, and of those that
    begin at the same place the longest. So ``cmpl-r1-2-0`` belongs to ``r1-2`` if that was sent, else to ``r1``, and
    never to ``r``.
    """
    places = range(len(engine_id) + 1)
    starts = [at for at in places if at == 0 or not engine_id[at - 1].isalnum()]
    ends = [at for at in reversed(places) if at == len(engine_id) or not engine_id[at].isalnum()]
    for start in starts:
        for end in ends:
            if end > start and (number := clients.get(engine_id[start:end])) is not None:
                return number
    return None


def _number_clients(spools: Sequence[SpoolRequests]) -> tuple[RequestTable, list[dict[int, _Key]]]:
    """All clients' requests, numbered, and for each spool its key by the spool's number."""
    keys: list[dict[int, _Key]] = []
    first = 0
    for spool in spools:
        keys.append(dict(zip(spool.clients.request.tolist(), range(first, first + len(spool.clients)), strict=True)))
        first += len(spool.clients)
    clients = RequestTable.concat([spool.clients for spool in spools])
    columns = {spec.name: getattr(clients, spec.name) for spec in RequestTable.columns()}
    return RequestTable(**{**columns, "request": np.arange(first, dtype="i4")}), keys


def _engine_keys(
    spool: SpoolRequests, position: int, by_name: Mapping[str, int], client_keys: Mapping[int, _Key]
) -> dict[int, _Key]:
    keys: dict[int, _Key] = {}
    for number, name in zip(spool.names.request.tolist(), spool.names.name.tolist(), strict=True):
        client = client_of(name, by_name)
        keys[number] = name if client is None else client
    for number in [*spool.ridden.tolist(), *spool.engine.request.tolist()]:
        if number not in keys:
            keys[number] = client_keys.get(number, (position, number))
    return keys


@dataclass(slots=True)
class _Unsent:
    """A request that no client's row stands for, as engines saw it. Times are 0 where nobody saw the event."""

    name: str
    is_needed: bool = False
    arrival_ns: int = 0
    first_token_ns: int = 0
    finish_ns: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    is_finished: bool = False
    reason: str = ""

    def see(self, row: Mapping[str, Any]) -> None:
        """Take what one scheduler says; if several do, the longest time and the most tokens."""
        self.arrival_ns = _earliest(self.arrival_ns, row["arrival_ns"])
        self.first_token_ns = _earliest(self.first_token_ns, row["first_token_ns"])
        self.finish_ns = max(self.finish_ns, row["finish_ns"])
        self.num_prompt_tokens = max(self.num_prompt_tokens, row["num_prompt_tokens"])
        self.num_output_tokens = max(self.num_output_tokens, row["num_output_tokens"])
        self.is_finished |= row["is_finished"]
        self.reason = self.reason or row["reason"]


def _unsent(
    spools: Sequence[SpoolRequests],
    client_keys: Sequence[Mapping[int, _Key]],
    engine_keys: Sequence[Mapping[int, _Key]],
) -> dict[_Key, _Unsent]:
    """All requests that are no client's, by key, in the order in which spools name them."""
    found: dict[_Key, _Unsent] = {}

    def of(key: _Key) -> _Unsent | None:
        if isinstance(key, int):
            return None
        return found.setdefault(key, _Unsent(key if isinstance(key, str) else f"<lost request {key[1]}>"))

    for spool, of_clients, of_engine in zip(spools, client_keys, engine_keys, strict=True):
        needed = [of_clients[number] for number in spool.answered.tolist()]
        needed += [of_engine[number] for number in spool.ridden.tolist()]
        for key in needed:
            if (request := of(key)) is not None:
                request.is_needed = True
        for row in _rows(spool.engine):
            if (request := of(of_engine[row["request"]])) is not None:
                request.see(row)
    return found


def _earliest(left_ns: int, right_ns: int) -> int:
    return min(left_ns or right_ns, right_ns or left_ns)


def _rows(table: EngineRequestTable) -> list[dict[str, Any]]:
    names = [spec.name for spec in EngineRequestTable.columns()]
    columns = [getattr(table, name).tolist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _numbers(keys: Mapping[int, _Key], numbers: Mapping[_Key, int]) -> RequestNumbers:
    return RequestNumbers.of({local: numbers.get(key, -1) for local, key in keys.items()})


def _table(requests: Sequence[_Unsent], first: int) -> RequestTable:
    return RequestTable.from_columns(
        request=np.arange(first, first + len(requests)),
        name=[request.name for request in requests],
        send_ns=[request.arrival_ns for request in requests],
        first_token_ns=[request.first_token_ns for request in requests],
        last_token_ns=[request.finish_ns for request in requests],
        num_prompt_tokens=[request.num_prompt_tokens for request in requests],
        num_output_tokens=[request.num_output_tokens for request in requests],
        is_finished=[request.is_finished for request in requests],
        error=["" if request.is_finished else request.reason for request in requests],
    )
