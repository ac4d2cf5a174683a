"""Waiting for a server: what is seen meanwhile, and when waiting ends."""

from __future__ import annotations

import socket
import threading

import pytest

from qmeter_native.engines.server_health import ServerHealth, ServerState, wait_until_healthy
from qmeter_native.errors import EngineError
from tests.openai_server import OpenAIServer, ServerOptions


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_ready_is_waited_for_no_longer() -> None:
    seen: list[ServerHealth] = []
    with OpenAIServer() as server:
        assert wait_until_healthy(server.base_url, timeout_s=5, observe=seen.append)
    assert [health.state for health in seen] == [ServerState.READY]


def test_a_server_that_starts_and_loads_is_seen_to_do_so() -> None:
    server = OpenAIServer(ServerOptions(load_s=0.4), free_port())
    seen: list[ServerHealth] = []

    def start_when_missed(health: ServerHealth) -> None:
        seen.append(health)
        if len(seen) == 1:
            server.__enter__()

    assert wait_until_healthy(server.base_url, timeout_s=10, observe=start_when_missed)
    server.stop()
    states = [health.state for health in seen]
    assert states[0] is ServerState.NOT_LISTENING
    assert states[-1] is ServerState.READY
    assert set(states[1:-1]) == {ServerState.NOT_READY}
    assert "refused" in seen[0].detail
    assert "503" in seen[1].detail


def test_a_server_without_a_health_path_is_ready_when_it_lists_models() -> None:
    with OpenAIServer(ServerOptions(has_health=False)) as server:
        assert wait_until_healthy(server.base_url, timeout_s=5)


def test_a_process_that_died_ends_the_waiting() -> None:
    with pytest.raises(EngineError, match="ended before it was ready"):
        wait_until_healthy(f"http://127.0.0.1:{free_port()}", timeout_s=5, is_alive=lambda: False)


def test_time_runs_out_with_what_was_seen_last() -> None:
    with pytest.raises(EngineError, match=r"not ready after 0.3 s: not listening yet \(.*refused"):
        wait_until_healthy(f"http://127.0.0.1:{free_port()}", timeout_s=0.3)


def test_a_socket_that_accepts_and_hangs_up_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(EngineError, match="listening, but not ready"):
            wait_until_healthy(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_missing_key_ends_the_waiting() -> None:
    with OpenAIServer(ServerOptions(api_key="secret")) as server:
        with pytest.raises(EngineError, match="HTTP 401"):
            wait_until_healthy(server.base_url, timeout_s=5)
        assert wait_until_healthy(server.base_url, timeout_s=5, api_key="secret")


def test_a_stop_event_ends_the_waiting() -> None:
    stop = threading.Event()
    url = f"http://127.0.0.1:{free_port()}"
    assert not wait_until_healthy(url, timeout_s=5, observe=lambda _: stop.set(), stop=stop)
